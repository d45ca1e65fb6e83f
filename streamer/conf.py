"""What may be set for an app: Kafka's names, and Faust's words for them.

    flag  >  environment  >  App(...)  >  streamer.toml  >  default

    streamer -A shop worker --set commit.interval.ms=50      STREAMER_COMMIT_INTERVAL_MS=50
    streamer.App("shop", commit_interval_ms=50)              [app] commit.interval.ms = 50

Settings that begin with `security.`, `sasl.` or `ssl.` have librdkafka's names and are
handed on to every client; so is `client.rack`. `broker_credentials=` sets them under
Faust's names (`auth.py`); what else Faust and Kafka call by other names is in `words.py`.
Commands that have no app get in by them too, from the same places but the code
(`load_access`).

The environment is shared with the built-in broker: names that are no settings of an app
are none of its business here. The command line looks for mistakes in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streamer.auth import Credentials
from streamer.errors import SettingsError
from streamer.settings import Kind, Option, Setting, read_toml, resolve, unknown_name
from streamer.words import ALIASES, FAUST, refuse

EXACTLY_ONCE, AT_LEAST_ONCE, AT_MOST_ONCE = "exactly_once", "at_least_once", "at_most_once"

OPTIONS = {
    option.name: option
    for option in [
        Option(
            "broker",
            Kind.STRING,
            "",
            "host:port of a Kafka broker, several by commas; empty: one of our own is"
            " started when it is needed.",
        ),
        Option(
            "processing.guarantee",
            Kind.STRING,
            EXACTLY_ONCE,
            "What a crash may cost: nothing, repetitions, or records.",
            choices=(EXACTLY_ONCE, "exactly_once_v2", AT_LEAST_ONCE, AT_MOST_ONCE),
        ),
        Option(
            "commit.interval.ms",
            Kind.INT,
            "100",
            "How long what is done waits at most until it is committed.",
            minimum=1,
        ),
        Option(
            "commit.changes.max",
            Kind.INT,
            "20000",
            "So many changed keys are committed sooner.",
            minimum=1,
        ),
        Option(
            "session.timeout.ms",
            Kind.INT,
            "10000",
            "How soon the others take over from a worker that says nothing any more.",
            minimum=1000,
        ),
        Option(
            "transaction.timeout.ms",
            Kind.INT,
            "10000",
            "How soon the transaction of a worker that says nothing is aborted.",
            minimum=1000,
        ),
        Option(
            "max.poll.interval.ms",
            Kind.INT,
            "60000",
            "How long a rebalance waits for a worker that has to let go of partitions.",
            minimum=1000,
        ),
        Option(
            "drain.timeout.ms",
            Kind.INT,
            "5000",
            "How long handlers may take to finish when partitions are taken or the worker"
            " stops; what is not done by then is done again elsewhere.",
            minimum=0,
        ),
        Option(
            "buffered.records.per.partition",
            Kind.INT,
            "4000",
            "So many records of a partition may wait for agents; then it is paused.",
            minimum=1,
        ),
        Option(
            "auto.offset.reset",
            Kind.STRING,
            "earliest",
            "Where a new app begins to read a topic.",
            choices=("earliest", "latest"),
        ),
        Option(
            "linger.ms", Kind.INT, "5", "How long a record waits for others.", minimum=0
        ),
        Option(
            "compression.type",
            Kind.STRING,
            "lz4",
            "How records are compressed.",
            choices=("none", "gzip", "snappy", "lz4", "zstd"),
        ),
        Option(
            "state.dir",
            Kind.STRING,
            "",
            "Where tables are kept; empty: `state` in the nearest .streamer folder.",
        ),
        Option(
            "store",
            Kind.STRING,
            "rocksdb",
            "What keeps tables: rocksdb, or memory, which is rebuilt at each start.",
            choices=("rocksdb", "memory", "rocksdb://", "memory://"),
        ),
        Option(
            "state.cleanup.delay.ms",
            Kind.LONG,
            "600000",
            "When a worker forgets the state of partitions that it has no more.",
            minimum=0,
        ),
        Option(
            "topic.allow.declare",
            Kind.BOOLEAN,
            "true",
            "Whether the app makes the topics it needs; if not, it lists them.",
        ),
        Option(
            "topic.partitions",
            Kind.INT,
            "-1",
            "Partitions of topics that name none; -1: the broker's default.",
            minimum=-1,
        ),
        Option(
            "topic.replication.factor",
            Kind.INT,
            "-1",
            "Copies of topics that name none; -1: the broker's default.",
            minimum=-1,
        ),
        Option(
            "dead.letter.topic",
            Kind.STRING,
            "",
            "Where dead letters go; empty: APP-dead-letters.",
        ),
        Option("web.enabled", Kind.BOOLEAN, "true", "Whether a worker serves its pages."),
        Option(
            "web.bind", Kind.STRING, "127.0.0.1", "The address that pages are served at."
        ),
        Option(
            "web.port",
            Kind.INT,
            "6066",
            "The port of the first worker's pages; a further one takes the next that is"
            " free; 0 takes any.",
            minimum=0,
            maximum=65535,
        ),
        Option(
            "health.stall.ms",
            Kind.INT,
            "60000",
            "A worker that gets on with nothing for so long, though there is something to"
            " do, is not healthy.",
            minimum=1000,
        ),
        Option(
            "loop.blocked.ms",
            Kind.INT,
            "1000",
            "User code that holds up the loop for so long is named in the log.",
            minimum=10,
        ),
        Option("timezone", Kind.STRING, "UTC", "The time zone of crontabs that name none."),
        Option("client.rack", Kind.STRING, "", "Where this is, to read from what is near."),
        Option(
            "security.protocol",
            Kind.STRING,
            "",
            "How to talk to the broker.",
            choices=("", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        ),
        *(
            Option(name, Kind.STRING, "", f"Handed on to every client: {meaning}.")
            for name, meaning in {
                "sasl.mechanism": "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
                "sasl.username": "who we are",
                "sasl.password": "its password",
                "sasl.oauthbearer.config": "what a token says",
                "sasl.oauthbearer.method": "default, or oidc",
                "sasl.oauthbearer.client.id": "for oidc",
                "sasl.oauthbearer.client.secret": "for oidc",
                "sasl.oauthbearer.token.endpoint.url": "for oidc",
                "sasl.oauthbearer.scope": "for oidc",
                "sasl.oauthbearer.extensions": "what else to say: name=value,name=value",
                "ssl.ca.location": "file of authorities to trust",
                "ssl.ca.pem": "the same, written out",
                "ssl.certificate.location": "file of our certificate",
                "ssl.certificate.pem": "the same, written out",
                "ssl.key.location": "file of its key",
                "ssl.key.pem": "the same, written out",
                "ssl.key.password": "that opens the key",
                "ssl.endpoint.identification.algorithm": "https, or none",
            }.items()
        ),
    ]
}
DEFAULT_PORT = 9092
HANDED_ON = ("security.", "sasl.", "ssl.", "client.rack")
# What a tool needs to know to get to a broker and in: of no app, but by the same names.
ACCESS = {
    name: option
    for name, option in OPTIONS.items()
    if name == "broker" or name.startswith(HANDED_ON)
}
SECRETS = ("password", "secret", "key.pem")

# The broker has a setting of this name too; these values mean something only there.
BROKERS_OWN = {"STREAMER_COMPRESSION_TYPE": ("producer", "uncompressed")}


class Conf:
    """The settings in force. `conf.commit_interval_ms` is `commit.interval.ms`."""

    def __init__(
        self,
        settings: Mapping[str, Setting],
        id: str,
        version: int,
        credentials: Credentials | None = None,
    ) -> None:
        self._settings = dict(settings)
        self._credentials = credentials
        self.app = id
        self.version = version
        # The name of the consumer group, and what names of topics begin with.
        self.id = id if version == 1 else f"{id}-v{version}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        dotted = name.replace("_", ".")
        try:
            return self._settings[dotted].value
        except KeyError:
            raise AttributeError(unknown_name(dotted, "conf", OPTIONS).problem) from None

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())

    @property
    def guarantee(self) -> str:
        return str(self.processing_guarantee).removesuffix("_v2")

    @property
    def brokers(self) -> str:
        """host:port, ...; empty if none is named."""
        named = str(self.broker).replace(";", ",").split(",")
        return ",".join(_address(one.strip()) for one in named if one.strip())

    @property
    def client_settings(self) -> dict[str, Any]:
        """What every client of librdkafka is given; raises SettingsError if that would let
        nobody in."""
        _refuse_idle(self._settings)
        given: dict[str, Any] = {
            name: found.text
            for name, found in self._settings.items()
            if name.startswith(HANDED_ON) and found.text
        }
        if self._credentials is not None and self._credentials.token is not None:
            given["oauth_cb"] = self._credentials.token
        return given


def _address(text: str) -> str:
    """host:port, though it may be written as a URL and without a port."""
    address = text.removeprefix("kafka://").removeprefix("//").rstrip("/")
    _, colon, port = address.rpartition(":")
    return address if colon and not port.endswith("]") else f"{address}:{DEFAULT_PORT}"


def shown(setting: Setting) -> str:
    """Its value as anybody may see it."""
    is_secret = setting.option.name.endswith(SECRETS)
    return "********" if is_secret and setting.text else setting.text


def load(
    id: str,
    version: int,
    *,
    code: Mapping[str, Any],
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    directory: Path,
) -> Conf:
    """The settings of an app; a name nobody knows is an error that guesses the right."""
    credentials = _credentials(code)
    given = credentials.settings() if credentials else {}
    given |= _from_code(code)
    file = {
        _named(name, found[1]): found for name, found in read_toml(directory, "app").items()
    }
    settings = resolve(
        OPTIONS,
        flags={_named(name, "flag"): text for name, text in flags.items()},
        environment=_ours(environment),
        file=file | {name: (text, "App(...)") for name, text in given.items()},
    )
    return Conf(settings, id, version, credentials)


def load_access(
    *, flags: Mapping[str, str], environment: Mapping[str, str], directory: Path
) -> Conf:
    """Where the broker is and how to get in, for those who have no app.

    What else an app may have in the file is none of their business.
    """
    for name in flags:
        if name in OPTIONS and name not in ACCESS:
            raise SettingsError(
                f"{name} (flag) is a setting of apps, and this command runs none.",
                remedy=f"It takes {', '.join(f'{prefix}...' for prefix in HANDED_ON[:3])}"
                f" and {HANDED_ON[3]}.",
            )
    named = {
        _named(name, found[1]): found for name, found in read_toml(directory, "app").items()
    }
    settings = resolve(
        ACCESS,
        flags={_named(name, "flag"): text for name, text in flags.items()},
        environment=environment,
        file={
            name: found
            for name, found in named.items()
            if name == "broker" or name.startswith(HANDED_ON)
        },
    )
    return Conf(settings, "", 1)


def _refuse_idle(settings: Mapping[str, Setting]) -> None:
    """A password that nobody asks for, or a certificate that is not looked at.

    Whoever sets them means TLS and SASL; librdkafka leaves both out unless the protocol
    says so. PLAINTEXT, in so many words, is for a broker beside: it switches all of it off.
    """
    protocol = settings["security.protocol"].text
    if protocol == "PLAINTEXT":
        return
    with_tls, with_sasl = "SSL" in protocol.split("_"), protocol.startswith("SASL")
    idle = (() if with_tls else ("ssl.",)) + (() if with_sasl else ("sasl.",))
    for name, found in settings.items():
        if found.text and idle and name.startswith(idle):
            raise SettingsError(
                f"{name} ({found.origin}) counts for nothing with security.protocol"
                f" {protocol or 'unset'}.",
                remedy="Set security.protocol to SSL for TLS alone, SASL_SSL for TLS and a"
                " name, SASL_PLAINTEXT for a name alone; PLAINTEXT leaves out both.",
            )
    if with_sasl and not settings["sasl.mechanism"].text:
        raise SettingsError(
            f"security.protocol is {protocol}, and there is no sasl.mechanism.",
            remedy="Set sasl.mechanism to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or"
            " OAUTHBEARER: the broker's administrator knows.",
        )


def _named(name: str, origin: str) -> str:
    """Our name for it."""
    refuse(name, origin)
    return ALIASES.get(name, name)


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in environment.items()
        if text not in BROKERS_OWN.get(name, ())
    }


def _credentials(code: Mapping[str, Any]) -> Credentials | None:
    found = code.get("broker_credentials")
    if found is None or isinstance(found, Credentials):
        return found
    raise SettingsError(
        f"broker_credentials = {type(found).__name__} (App(...)) are none.",
        remedy="Give streamer.SASLCredentials, SSLCredentials or OAuthCredentials.",
    )


def _from_code(code: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word, value in code.items():
        if value is None or word == "broker_credentials":
            continue
        refuse(word, "App(...)")
        if word in FAUST:
            name, convert = FAUST[word]
            value = convert(value)
        else:
            name = _named(word.replace("_", "."), "App(...)")
        if name not in OPTIONS:
            raise unknown_name(word, "App(...)", [*_words(), *FAUST])
        found[name] = _text(value)
    return found


def _words() -> list[str]:
    """The settings as arguments of `App`."""
    return [name.replace(".", "_") for name in OPTIONS]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(getattr(value, "value", value))
