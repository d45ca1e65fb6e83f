"""What the framework and the command line need of Kafka.

Five protocols, each small: a `Consumer` reads, a `Member` reads its share of what a group
reads, a `Producer` writes, a `TransactionalProducer` writes all or nothing, an `Admin`
asks and changes.
`confluent.py` has them on librdkafka; another client would pass the same tests.
Whoever uses them sees none of the library behind:

- a value that comes back is one of the frozen classes below;
- an error is a `ClientError`, which says the problem and the way out.

Two things are shaped by speed. A record read is a `Message`, whose parts are
methods: librdkafka's own objects are handed on as they are, since wrapping each
would cost more than everything else done with it. And `Producer.produce` is
positional, for the same reason; `send` is the comfortable way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streamer.errors import StreamerError

Headers = Sequence[tuple[str, bytes | None]]


class ClientError(StreamerError):
    """A broker refused, or could not be asked."""

    remedy = "`streamer cluster` shows whether the broker answers, and what it is."


class BrokerUnavailable(ClientError):
    """Nobody answers at the address, or not in time."""

    remedy = (
        "Start a broker with `streamer broker`, "
        "or name another with -b host:port or STREAMER_BROKER."
    )


class NotLetIn(ClientError):
    """We and the broker do not agree about TLS, or about who we are. It will not pass."""


class NoSuchTopic(ClientError):
    remedy = "`streamer topic list` shows what there is; `streamer topic create` makes one."


class TopicExists(ClientError):
    remedy = "`streamer topic describe` shows it; `streamer topic alter` changes it."


class NoSuchGroup(ClientError):
    remedy = "`streamer group list` shows what there is."


class GroupNotEmpty(ClientError):
    remedy = "Stop its members first; `streamer group describe` shows them."


class NotAMember(ClientError):
    """The group has gone on without us: others may have our partitions by now."""

    remedy = "Poll more often, or allow longer pauses (max.poll.interval.ms)."


class Fenced(ClientError):
    """Another producer with our transactional id has taken over."""

    remedy = "It goes on with our work; end this one."


class MustAbort(ClientError):
    """The transaction cannot be committed any more; it can be aborted and done again."""


class Unsendable(MustAbort):
    """A record was refused for what it is or where it was to go, not for any trouble."""


class NotNow(ClientError):
    """Refused for a reason that passes: the same call may succeed a little later."""


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}"


class Position(NamedTuple):
    """How far a group has come in a partition: the next offset to read, and a note."""

    offset: int
    note: str = ""


class Given(NamedTuple):
    """The group gives us these partitions."""

    partitions: tuple[TopicPartition, ...]
    # Who we are as long as they are ours, for `TransactionalProducer.send_offsets`. Asked
    # later it could be who we are by then, with partitions that others have by then.
    membership: object = None


class Taken(NamedTuple):
    """The group takes these partitions back. `lost`: others may have them already."""

    partitions: tuple[TopicPartition, ...]
    lost: bool


@dataclass(frozen=True, slots=True)
class Broker:
    id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Partition:
    index: int
    # -1: nobody leads it now, so it can be neither read nor written.
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    partitions: tuple[Partition, ...]

    @property
    def replication(self) -> int:
        return max((len(partition.replicas) for partition in self.partitions), default=0)

    @property
    def topic_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, partition.index) for partition in self.partitions]


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    name: str
    # None: not set, or too secret to be shown.
    value: str | None
    # Where it was set: topic, (dynamic|dynamic default|static) broker, default, unknown.
    source: str
    read_only: bool
    sensitive: bool

    @property
    def is_default(self) -> bool:
        return self.source == "default"


@dataclass(frozen=True, slots=True)
class Cluster:
    id: str
    controller: int
    brokers: tuple[Broker, ...]
    topics: tuple[Topic, ...]


@dataclass(frozen=True, slots=True)
class GroupMember:
    id: str
    # The name that a static member keeps over a restart.
    instance_id: str | None
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    state: str  # as Kafka spells it: Stable, PreparingRebalance, Empty ...
    kind: str  # classic, or consumer: that of KIP-848
    assignor: str
    coordinator: Broker
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that did not arrive, and why."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    problem: str
    # For what it is, or where it was to go; not because nobody answered.
    refused: bool = False


class Message(Protocol):
    """A record as it was read."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]:
        """Its type (1: set by the producer, 2: by the broker) and milliseconds."""


class Consumer(Protocol):
    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, each from the offset given; replaces what was assigned."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group; `consume` takes part in it, and must be called often."""

    def assigned(self) -> frozenset[TopicPartition] | None:
        """What we read just now; None while the group has not decided."""

    def consume(self, limit: int, wait_s: float) -> Sequence[Message]:
        """What is there, up to `limit` records; if nothing is, wait for the first."""

    def ended(self) -> Mapping[TopicPartition, int]:
        """The partitions read to their end once, and where that was; more may have come.

        The end lies behind the last record by as many offsets as markers of transactions,
        records that were aborted and those compacted away have taken.
        """

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Let the group go on from these offsets; returns once the broker has them.

        Raises NotAMember when the group has gone on without us.
        """

    def membership(self) -> object:
        """Who we are in the group, for `TransactionalProducer.send_offsets`."""

    def close(self) -> None:
        """Leave the group, if we are in one, and end."""


class Member(Protocol):
    """A member of a group that decides itself when it begins and when it lets go.

    What the group gives or takes comes from `changes`, noted while it consumes. Nothing
    given is read before `read`; what is taken stays ours, paused, until `let_go`, so that
    there is time to commit.
    """

    def subscribe(self, topics: Sequence[str]) -> None: ...

    def consume(self, limit: int, wait_s: float) -> Sequence[Message]:
        """What is there, up to `limit` records; if nothing is, wait for the first."""

    def changes(self) -> Sequence[Given | Taken]:
        """What the group has decided since the last call."""

    def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Position]:
        """Where the group is to go on, once no transaction has a say in that any more."""

    def read(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read just these partitions from now on, each from its offset."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None: ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def let_go(self) -> None:
        """Give back what was taken."""

    def watermarks(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        """First offset and end of each, as the last fetch told; the broker is not asked,
        and those it has told nothing of yet are left out."""

    def commit(self, positions: Mapping[TopicPartition, Position]) -> None:
        """Let the group go on from these; NotAMember if it has gone on without us."""

    # While consuming it has been found that no broker answers; whoever looks after that
    # sets it back.
    in_trouble: bool

    def close(self) -> None: ...


Delivered = Callable[[object, Message], None]
"""Called within `poll` or `flush` when the record has arrived, or with an error if not."""


class Produce(Protocol):
    def __call__(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        delivered: Delivered | None = None,
        _: None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes | None]] | None = None,
        /,
    ) -> None: ...


class Producer(Protocol):
    # Records given up, in the order they failed: the first hundred; and how many in all.
    failures: list[Failure]
    failed: int

    produce: Produce
    """Queue a record, as fast as can be; partition -1 lets the key decide.

    Raises BufferError when the queue is full: `poll`, then try again.
    """

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> None:
        """Queue a record; wait while the queue is full. What cannot be sent has failed."""

    def poll(self, wait_s: float = 0) -> None:
        """Learn what has become of earlier records. Call it now and then."""

    def flush(self, wait_s: float) -> int:
        """Wait until all have arrived or failed; returns how many are still open."""

    def noting(self, arrived: Callable[[Message], None]) -> Delivered:
        """What to give to `produce` with a record whose arrival is of interest. One that
        has failed is among `failures`, like any other."""

    def meaning(self, error: Exception, topic: str) -> ClientError:
        """What `produce` has raised, in our words."""

    def forget(self) -> None:
        """End without waiting for anything: what is queued is dropped."""

    def __len__(self) -> int:
        """How many records are queued or on the way."""


class TransactionalProducer(Producer, Protocol):
    def begin(self) -> None: ...

    def send_offsets(
        self, positions: Mapping[TopicPartition, Position], membership: object
    ) -> None:
        """Commit positions of a consumer in the transaction, together with its records."""

    def commit(self) -> None:
        """Make all of it visible at once; returns once that is durable."""

    def abort(self) -> None:
        """Let none of it ever be seen."""


class Admin(Protocol):
    def cluster(self) -> Cluster: ...

    def topic(self, name: str) -> Topic:
        """One topic; raises NoSuchTopic."""

    def create_topic(
        self, name: str, *, partitions: int, replication: int, configs: Mapping[str, str]
    ) -> None:
        """Create a topic; -1 for partitions or replication is the broker's default."""

    def delete_topics(self, names: Sequence[str]) -> None: ...

    def add_partitions(self, name: str, total: int) -> None:
        """Let the topic have `total` partitions; it cannot have fewer than before."""

    def topic_configs(self, name: str) -> list[ConfigEntry]: ...

    def alter_topic_configs(
        self, name: str, *, changed: Mapping[str, str], deleted: Sequence[str]
    ) -> None:
        """Set some configs, return others to their default; leave the rest alone."""

    def first_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]: ...

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, committed: bool = False
    ) -> dict[TopicPartition, int]:
        """The offset that the next record will get.

        With `committed`, where readers of committed records come to: the beginning of the
        oldest transaction that goes on, if there is one.
        """

    def offsets_at(
        self, partitions: Iterable[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int]:
        """The first record of this time or later; the end where there is none."""

    def groups(self) -> list[Group]:
        """Every consumer group of the cluster, by name."""

    def group(self, name: str) -> Group:
        """One group; raises NoSuchGroup."""

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that the group has committed; none if there is no such group."""

    def set_committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Give a group other offsets, while nobody is in it; raises GroupNotEmpty."""

    def delete_group(self, name: str) -> None:
        """Forget a group and its offsets; raises NoSuchGroup, GroupNotEmpty."""
