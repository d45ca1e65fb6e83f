"""Records in batches, as `streamer consume` prints them: by a plan, or as a group's member.

By a plan, each partition is read from an offset, and up to another if it has one. A
member reads what its group gives it, and commits a batch when it is asked for the next:
by then it has been printed. So no record is left out, whatever ends the command; what it
had no time to commit comes again.

Offsets are not dense. Markers of transactions, aborted records and those compacted away
have taken some: that a partition has ended is told by the consumer, and counted by nobody.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType

from streamer.cli.output import say
from streamer.client.interface import Consumer, Message, NotAMember, TopicPartition

BATCH = 1000
# Wake up that often to see Ctrl-C; records do not wait for it.
WAIT_S = 0.5
# When nothing has come for so long, see whether the topic is still there:
# librdkafka goes on waiting for one that was deleted.
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    begin: dict[TopicPartition, int]
    # Partitions with a stop end before it; the others never end.
    stop: dict[TopicPartition, int]


def planned_batches(
    consumer: Consumer,
    plan: Plan,
    count: int | None,
    idle: Callable[[], None],
    ctrl_c: "CtrlC",
) -> Iterator[Sequence[Message]]:
    """Records until every partition has reached its stop, or there were `count`."""
    left = sys.maxsize if count is None else count
    reading = {
        at: offset
        for at, offset in plan.begin.items()
        if at not in plan.stop or offset < plan.stop[at]
    }
    consumer.assign(reading)
    unfinished = set(reading)
    idleness = Idleness(idle)
    while unfinished and left and not ctrl_c.pressed:
        messages = consumer.consume(min(BATCH, left), WAIT_S)
        if plan.stop:
            messages = [
                message for message in messages if before_stop(plan, message, unfinished)
            ]
            # What lies before a stop may be no record: a marker, or compacted away.
            unfinished -= consumer.ended().keys() & plan.stop.keys()
        if messages:
            left -= len(messages)
            yield messages
        idleness.after(messages)


def before_stop(plan: Plan, message: Message, unfinished: set[TopicPartition]) -> bool:
    """Whether the record is to be printed; marks its partition finished at the stop."""
    at = TopicPartition(message.topic(), message.partition())
    if message.offset() + 1 >= plan.stop[at]:
        unfinished.discard(at)
    return message.offset() < plan.stop[at]


def member_batches(
    consumer: Consumer,
    topic: str,
    count: int | None,
    idle: Callable[[], None],
    ctrl_c: "CtrlC",
    *,
    at_end: bool,
) -> Iterator[Sequence[Message]]:
    """Records of our share of the topic, until there were `count`, or at its end."""
    left = sys.maxsize if count is None else count
    consumer.subscribe([topic])
    member = Member(consumer)
    idleness = Idleness(idle)
    while left and not ctrl_c.pressed:
        messages = consumer.consume(min(BATCH, left), WAIT_S)
        if messages:
            left -= len(messages)
            yield messages
        # Whoever asks for more has printed these.
        member.printed(messages)
        member.pass_ends()
        member.commit()
        if at_end and member.has_ended():
            return
        idleness.after(messages)


class Member:
    """Of a group: how far it has printed, and how much of that the group knows."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._printed: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}

    def has_ended(self) -> bool:
        """Whether our share, if we know it, was read to its end. It may be nothing."""
        assigned = self._consumer.assigned()
        return assigned is not None and assigned <= self._consumer.ended().keys()

    def printed(self, messages: Sequence[Message]) -> None:
        for message in messages:
            at = TopicPartition(message.topic(), message.partition())
            self._printed[at] = message.offset() + 1

    def pass_ends(self) -> None:
        """All records are printed, and so is all before the ends met: markers, say."""
        for at, offset in self._consumer.ended().items():
            self._printed[at] = max(offset, self._printed.get(at, 0))

    def commit(self) -> None:
        # What others read by now is theirs to commit.
        ours = self._consumer.assigned() or frozenset()
        news = {
            at: offset
            for at, offset in self._printed.items()
            if at in ours and offset > self._committed.get(at, -1)
        }
        if not news:
            return
        try:
            self._consumer.commit(news)
        except NotAMember as error:
            say(f"{error.problem} Others of the group may print some records again.")
            self._printed.clear()
        else:
            self._committed |= news


class Idleness:
    """Calls `look` when for a while there was nothing to read."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._since = time.monotonic()

    def after(self, messages: Sequence[Message]) -> None:
        now = time.monotonic()
        if messages:
            self._since = now
        elif now - self._since > IDLE_S:
            self._look()
            self._since = now


class CtrlC:
    """Inside, Ctrl-C asks for an end after this batch; the second ends the process at once.

    As an exception it could come in the middle of a rebalance, and librdkafka loses what
    is raised while it calls us back; or between a batch printed and its commit.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> "CtrlC":
        self._usual = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._usual)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
