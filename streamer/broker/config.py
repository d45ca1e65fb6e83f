"""What may be set for the broker: Kafka's names, and one of ours, `log.durability`.

Every default of a topic (`log/config.py`) is a setting of the broker too, under
Kafka's other name for it; those may be changed while it runs. Kafka lets three of
them be given in coarser units (`log.retention.hours`): the finest that was set wins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from streamer.errors import SettingsError
from streamer.log.config import TOPIC_OPTIONS
from streamer.settings import (
    Kind,
    Option,
    Setting,
    check_environment,
    read_toml,
    resolve,
    setting,
)

# Read by other parts of streamer than the broker.
OTHER_VARIABLES = ("STREAMER_BROKER", "STREAMER_HOME", "STREAMER_APP")

_OWN = [
    Option(
        "listeners",
        Kind.LIST,
        "PLAINTEXT://127.0.0.1:9092",
        "Where clients connect: PLAINTEXT://host:port; port 0 takes one and keeps it.",
    ),
    Option(
        "advertised.listeners",
        Kind.LIST,
        "",
        "What clients are told to connect to, where that differs from `listeners`.",
    ),
    Option(
        "log.dirs", Kind.STRING, ".streamer/broker", "The folder that holds everything."
    ),
    Option(
        "log.durability",
        Kind.STRING,
        "fsync",
        "`fsync`: what is acknowledged survives a power cut; `page-cache`: only a kill.",
        choices=("fsync", "page-cache"),
    ),
    Option(
        "node.id", Kind.INT, "1", "The number that clients know this broker by.", minimum=0
    ),
    Option(
        "num.partitions", Kind.INT, "4", "Partitions of a topic that names none.", minimum=1
    ),
    Option(
        "auto.create.topics.enable",
        Kind.BOOLEAN,
        "true",
        "Whether a topic comes into being when a client first asks for it.",
    ),
    Option(
        "delete.topic.enable", Kind.BOOLEAN, "true", "Whether clients may delete topics."
    ),
    Option(
        "default.replication.factor",
        Kind.INT,
        "1",
        "Accepted for Kafka's sake; one node keeps one copy.",
        minimum=1,
    ),
    Option(
        "log.retention.check.interval.ms",
        Kind.LONG,
        "300000",
        "How often old segments are looked for.",
        minimum=1,
    ),
    Option(
        "log.flush.offset.checkpoint.interval.ms",
        Kind.INT,
        "5000",
        "How often the point is written down from which a crash makes us read again.",
        minimum=1,
    ),
    Option(
        "producer.id.expiration.ms",
        Kind.INT,
        "86400000",
        "How long a silent idempotent producer is remembered.",
        minimum=1,
    ),
    Option(
        "producer.id.expiration.check.interval.ms",
        Kind.INT,
        "600000",
        "How often silent producers are looked for.",
        minimum=1,
    ),
    Option(
        "group.initial.rebalance.delay.ms",
        Kind.INT,
        "100",
        "How long the first members of an empty group wait for more of them.",
        minimum=0,
    ),
    Option(
        "group.min.session.timeout.ms",
        Kind.INT,
        "6000",
        "The shortest session time-out that a member may ask for.",
        minimum=0,
    ),
    Option(
        "group.max.session.timeout.ms",
        Kind.INT,
        "1800000",
        "The longest; who asks for more takes longer to be missed.",
        minimum=0,
    ),
    Option(
        "group.max.size",
        Kind.INT,
        "2147483647",
        "The most members of one group.",
        minimum=1,
    ),
    Option(
        "offsets.topic.num.partitions",
        Kind.INT,
        "1",
        "Partitions of `__consumer_offsets`, where it is not made yet; one file, one sync.",
        minimum=1,
    ),
    Option(
        "offsets.topic.segment.bytes",
        Kind.INT,
        str(16 << 20),
        "The size of its segments, where it is not made yet; whole ones are compacted.",
        minimum=1 << 20,
    ),
    Option(
        "offset.metadata.max.bytes",
        Kind.INT,
        "4096",
        "The longest text that a consumer may keep beside an offset.",
        minimum=0,
    ),
    Option(
        "offsets.retention.minutes",
        Kind.INT,
        "10080",
        "How long committed offsets are kept once nobody is in the group any more.",
        minimum=1,
    ),
    Option(
        "offsets.retention.check.interval.ms",
        Kind.LONG,
        "600000",
        "How often offsets that nobody needs are looked for.",
        minimum=1,
    ),
    Option(
        "log.cleaner.backoff.ms",
        Kind.LONG,
        "15000",
        "How often partitions are looked for that compaction is worth it for.",
        minimum=1,
    ),
    Option(
        "log.cleaner.io.max.bytes.per.second",
        Kind.DOUBLE,
        "52428800",
        "How much compaction reads and writes in a second at the most.",
        minimum=1,
        dynamic=True,
    ),
    Option(
        "transaction.max.timeout.ms",
        Kind.INT,
        "900000",
        "The longest time-out that a transactional producer may ask for.",
        minimum=1,
    ),
    Option(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Kind.INT,
        "1000",
        "How often transactions are looked for that take too long.",
        minimum=1,
    ),
    Option(
        "transactional.id.expiration.ms",
        Kind.INT,
        "604800000",
        "How long a transactional id is remembered that nobody uses.",
        minimum=1,
    ),
    Option(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Kind.INT,
        "3600000",
        "How often such ids are looked for.",
        minimum=1,
    ),
    Option(
        "transaction.state.log.num.partitions",
        Kind.INT,
        "1",
        "Partitions of `__transaction_state`, if it is not made yet; one file, one sync.",
        minimum=1,
    ),
    Option(
        "transaction.state.log.segment.bytes",
        Kind.INT,
        str(16 << 20),
        "The size of its segments, where it is not made yet; whole ones are compacted.",
        minimum=1 << 20,
    ),
    Option(
        "fetch.max.bytes",
        Kind.INT,
        "57671680",
        "The largest answer to one Fetch.",
        minimum=1024,
    ),
    Option(
        "socket.request.max.bytes",
        Kind.INT,
        "104857600",
        "The largest request; a client that announces more is disconnected.",
        minimum=1,
    ),
    Option(
        "queued.max.request.bytes",
        Kind.LONG,
        "268435456",
        "Large requests being received at once; beyond it, connections wait their turn.",
        minimum=1,
    ),
    Option(
        "max.connections",
        Kind.INT,
        "10000",
        "Connections at once; one more is closed at once, with a line in the log.",
        minimum=1,
    ),
    Option(
        "connections.max.idle.ms",
        Kind.LONG,
        "600000",
        "How long a connection may say nothing before it is closed.",
        minimum=1,
    ),
    Option(
        "socket.listen.backlog.size",
        Kind.INT,
        "512",
        "Connections that may wait to be accepted.",
        minimum=1,
    ),
]

_COARSE = {
    "log.retention.minutes": ("log.retention.ms", 60_000, "10080"),
    "log.retention.hours": ("log.retention.ms", 3_600_000, "168"),
    "log.roll.hours": ("log.roll.ms", 3_600_000, "168"),
    "log.roll.jitter.hours": ("log.roll.jitter.ms", 3_600_000, "0"),
}

_TOPIC_DEFAULTS = [
    replace(entry.option, name=entry.broker_name, dynamic=True)
    for entry in TOPIC_OPTIONS.values()
    if entry.broker_name is not None
]

BROKER_OPTIONS: dict[str, Option] = {
    option.name: option
    for option in sorted(
        _OWN
        + _TOPIC_DEFAULTS
        + [
            Option(name, Kind.INT, default, f"A coarser way to set `{fine}`.", minimum=-1)
            for name, (fine, _, default) in _COARSE.items()
        ],
        key=lambda option: option.name,
    )
}


@dataclass(frozen=True, slots=True)
class Listener:
    """A place to listen at, or to be found at. Only PLAINTEXT so far."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class BrokerConfig:
    """The broker's settings: those it started with, under what was altered since."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._static = {**settings, **_finest(settings)}
        self._altered: dict[str, Setting] = {}
        self.listeners = [
            _listener(self, "listeners", text) for text in self.names("listeners")
        ]
        self.advertised = [
            _listener(self, "advertised.listeners", text)
            for text in self.names("advertised.listeners")
        ]
        if not self.listeners:
            raise SettingsError("`listeners` is empty.", remedy="Name at least one.")
        if self.advertised and len(self.advertised) != len(self.listeners):
            raise SettingsError(
                "`advertised.listeners` and `listeners` differ in number.",
                remedy="Give one advertised address for each listener, in the same order.",
            )
        if "," in self.text("log.dirs"):
            raise SettingsError(
                "`log.dirs` names several folders.",
                remedy="Give one: streamer keeps everything in one folder.",
            )

    def __iter__(self) -> Iterator[Setting]:
        return iter([self[name] for name in self._static])

    def __getitem__(self, name: str) -> Setting:
        return self._altered.get(name) or self._static[name]

    def static(self, name: str) -> Setting:
        """The setting the broker started with, whatever was altered since."""
        return self._static[name]

    def altered(self, name: str) -> Setting | None:
        return self._altered.get(name)

    def alter(self, texts: Mapping[str, str]) -> None:
        """Lay what was altered while running over what the broker started with."""
        self._altered = {
            name: setting(BROKER_OPTIONS[name], text, "altered")
            for name, text in texts.items()
        }

    def text(self, name: str) -> str:
        return self[name].text

    def number(self, name: str) -> int:
        value = self[name].value
        assert isinstance(value, int)
        return value

    def decimal(self, name: str) -> float:
        value = self[name].value
        assert isinstance(value, float)
        return value

    def flag(self, name: str) -> bool:
        return self[name].value is True

    def names(self, name: str) -> tuple[str, ...]:
        value = self[name].value
        assert isinstance(value, tuple)
        return value


def _finest(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """What the coarse names set, where no finer name was set."""
    found: dict[str, Setting] = {}
    for coarse, (fine, factor, _) in _COARSE.items():
        given = settings[coarse]
        if given.is_default or not settings[fine].is_default or fine in found:
            continue
        assert isinstance(given.value, int)
        value = given.value * factor if given.value >= 0 else -1
        found[fine] = setting(
            settings[fine].option, str(value), f"{coarse}, {given.origin}"
        )
    return found


def _listener(config: BrokerConfig, name: str, text: str) -> Listener:
    scheme, _, address = text.partition("://")
    host, _, port = address.rpartition(":")
    if scheme != "PLAINTEXT" or not port.isdigit() or int(port) > 65535:
        raise SettingsError(
            f"{name} = {text!r} ({config[name].origin}) is not a listener.",
            remedy="Write it as PLAINTEXT://host:port.",
        )
    return Listener(host.strip("[]") or "0.0.0.0", int(port))


def load(
    *, flags: Mapping[str, str], environment: Mapping[str, str], directory: Path
) -> BrokerConfig:
    """The configuration from flags, the environment and the nearest settings file."""
    check_environment(environment, BROKER_OPTIONS.values(), OTHER_VARIABLES)
    return BrokerConfig(
        resolve(
            BROKER_OPTIONS,
            flags=flags,
            environment=environment,
            file=read_toml(directory, "broker"),
        )
    )
