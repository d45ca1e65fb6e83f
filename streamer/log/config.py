"""What may be set for a topic: Kafka's names, defaults and meanings.

Each topic option has a synonym among the broker's settings, which is its default
for topics that do not set it (`retention.ms` ← `log.retention.ms`). Some of
Kafka's options have no meaning on one node (replication throttles, tiered
storage): they are accepted, kept and described, since tools read and write the
whole list, and their description says that they have no effect.

`LogConfig` is what a partition works with: the same values, typed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.settings import Kind, Option, Value

FOREVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TopicOption:
    """A topic's option, and the broker's setting that it falls back on, if there is one."""

    option: Option
    broker_name: str | None


@dataclass(frozen=True, slots=True)
class Level(Option):
    """A compression level: within a range, or the default, which may lie outside of it."""

    within: range = range(0)

    def parse(self, text: str) -> Value:
        value = Option.parse(self, text)
        default = int(self.default)
        if value not in self.within and value != default:
            besides = "" if default in self.within else f", or {default}"
            raise ValueError(f"must be from {self.within[0]} to {self.within[-1]}{besides}")
        return value


def _level(codec: str, default: str, within: range) -> TopicOption:
    name = f"compression.{codec}.level"
    doc = f"Level for {codec} where the broker itself compresses."
    return TopicOption(Level(name, Kind.INT, default, doc, within=within), name)


def _option(
    name: str,
    broker_name: str | None,
    kind: Kind,
    default: str,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> TopicOption:
    option = Option(name, kind, default, doc, minimum, choices, maximum=maximum)
    return TopicOption(option, broker_name)


_TABLE = [
    _option(
        "cleanup.policy",
        "log.cleanup.policy",
        Kind.LIST,
        "delete",
        "Old data goes by age and size (delete), or all but each key's last (compact).",
        choices=("delete", "compact"),
    ),
    _level("gzip", "-1", range(1, 10)),
    _level("lz4", "9", range(1, 18)),
    _option(
        "compression.type",
        "compression.type",
        Kind.STRING,
        "producer",
        "Batches are kept as their producer compressed them.",
        choices=("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    ),
    _level("zstd", "3", range(-131072, 23)),
    _option(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        Kind.LONG,
        "86400000",
        "How long compaction keeps a tombstone, so that readers see the deletion.",
        minimum=0,
    ),
    _option(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        Kind.LONG,
        "60000",
        "How long a deleted file stays on disk before it is removed.",
        minimum=0,
    ),
    _option(
        "flush.messages",
        "log.flush.interval.messages",
        Kind.LONG,
        str(FOREVER),
        "Has no effect: `log.durability` decides when data is flushed.",
        minimum=1,
    ),
    _option(
        "flush.ms",
        "log.flush.interval.ms",
        Kind.LONG,
        str(FOREVER),
        "Has no effect: `log.durability` decides when data is flushed.",
        minimum=0,
    ),
    _option(
        "follower.replication.throttled.replicas",
        None,
        Kind.LIST,
        "",
        "Has no effect: there are no followers.",
    ),
    _option(
        "index.interval.bytes",
        "log.index.interval.bytes",
        Kind.INT,
        "4096",
        "How many bytes of a segment lie between two entries of its index.",
        minimum=0,
    ),
    _option(
        "leader.replication.throttled.replicas",
        None,
        Kind.LIST,
        "",
        "Has no effect: there are no followers.",
    ),
    _option(
        "local.retention.bytes",
        "log.local.retention.bytes",
        Kind.LONG,
        "-2",
        "Has no effect: there is no remote storage.",
        minimum=-2,
    ),
    _option(
        "local.retention.ms",
        "log.local.retention.ms",
        Kind.LONG,
        "-2",
        "Has no effect: there is no remote storage.",
        minimum=-2,
    ),
    _option(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        Kind.LONG,
        str(FOREVER),
        "How long a record may stay uncompacted at the most.",
        minimum=1,
    ),
    _option(
        "max.message.bytes",
        "message.max.bytes",
        Kind.INT,
        "1048588",
        "The largest record batch that is accepted.",
        minimum=0,
    ),
    _option(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        Kind.LONG,
        "3600000",
        "How far a record's timestamp may lie in the future.",
        minimum=0,
    ),
    _option(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        Kind.LONG,
        str(FOREVER),
        "How far a record's timestamp may lie in the past.",
        minimum=0,
    ),
    _option(
        "message.timestamp.type",
        "log.message.timestamp.type",
        Kind.STRING,
        "CreateTime",
        "Whether records carry the producer's time or the time they were appended.",
        choices=("CreateTime", "LogAppendTime"),
    ),
    _option(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        Kind.DOUBLE,
        "0.5",
        "How much of a log must be uncompacted before compaction is worth it.",
        minimum=0,
        maximum=1,
    ),
    _option(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        Kind.LONG,
        "0",
        "How long a record stays uncompacted at the least.",
        minimum=0,
    ),
    _option(
        "min.insync.replicas",
        "min.insync.replicas",
        Kind.INT,
        "1",
        "Has no effect: one node is all there is.",
        minimum=1,
    ),
    _option(
        "preallocate",
        "log.preallocate",
        Kind.BOOLEAN,
        "false",
        "Has no effect: segments grow as they are written.",
    ),
    _option(
        "remote.log.copy.disable",
        None,
        Kind.BOOLEAN,
        "false",
        "Has no effect: there is no remote storage.",
    ),
    _option(
        "remote.log.delete.on.disable",
        None,
        Kind.BOOLEAN,
        "false",
        "Has no effect: there is no remote storage.",
    ),
    _option(
        "remote.storage.enable",
        None,
        Kind.BOOLEAN,
        "false",
        "Has no effect: there is no remote storage.",
    ),
    _option(
        "retention.bytes",
        "log.retention.bytes",
        Kind.LONG,
        "-1",
        "How large a partition may grow before its oldest segments go; -1 for no limit.",
        minimum=-1,
    ),
    _option(
        "retention.ms",
        "log.retention.ms",
        Kind.LONG,
        "604800000",
        "How old a segment may grow before it goes; -1 for no limit.",
        minimum=-1,
    ),
    _option(
        "segment.bytes",
        "log.segment.bytes",
        Kind.INT,
        "1073741824",
        "How large a segment grows before the next one begins.",
        minimum=1048576,
    ),
    _option(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        Kind.INT,
        "10485760",
        "How large an index grows before the next segment begins.",
        minimum=4,
    ),
    _option(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        Kind.LONG,
        "0",
        "Spreads the rolling of segments by age over this much time.",
        minimum=0,
    ),
    _option(
        "segment.ms",
        "log.roll.ms",
        Kind.LONG,
        "604800000",
        "How old a segment grows before the next one begins.",
        minimum=1,
    ),
    _option(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        Kind.BOOLEAN,
        "false",
        "Has no effect: one node is all there is.",
    ),
]

TOPIC_OPTIONS: dict[str, TopicOption] = {entry.option.name: entry for entry in _TABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """A topic's settings as its partitions use them; -1 is no limit, as in Kafka."""

    compact: bool = False
    delete: bool = True
    compression_type: str = "producer"
    delete_retention_ms: int = 86_400_000
    file_delete_delay_ms: int = 60_000
    index_interval_bytes: int = 4096
    max_compaction_lag_ms: int = FOREVER
    max_message_bytes: int = 1_048_588
    message_timestamp_after_max_ms: int = 3_600_000
    message_timestamp_before_max_ms: int = FOREVER
    message_timestamp_type: str = "CreateTime"
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    retention_bytes: int = -1
    retention_ms: int = 604_800_000
    segment_bytes: int = 1_073_741_824
    segment_index_bytes: int = 10_485_760
    segment_jitter_ms: int = 0
    segment_ms: int = 604_800_000

    @property
    def segment_age_max_ms(self) -> int:
        """What must be compacted before long must not stay in the last segment."""
        if self.compact:
            return min(self.segment_ms, self.max_compaction_lag_ms)
        return self.segment_ms


def log_config(values: Mapping[str, Value]) -> LogConfig:
    """The typed form of a topic's settings, which are given by Kafka's names."""
    policy = values["cleanup.policy"]
    assert isinstance(policy, tuple)
    typed = {
        field: values[field.replace("_", ".")]
        for field in LogConfig.__dataclass_fields__
        if field not in ("compact", "delete")
    }
    return LogConfig(compact="compact" in policy, delete="delete" in policy, **typed)  # type: ignore[arg-type]
