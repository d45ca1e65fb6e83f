"""A member of a group that lets go in its own time.

librdkafka tells of a rebalance from within `consume`, and what is not done by the end of
that call it does itself. So what is given is answered with "read nothing yet", and what is
taken with "go on, but paused": the group waits, for as long as a rebalance may take, until
`let_go`. A commit in between is still one of the old generation, and is accepted.

A consumer of confluent-kafka does one thing at a time: who calls it while another thread
is in a call waits for that one, even `consume(1000, 0)`. So all calls come from whoever
reads, one after the other, except for `committed`, which may take as long as the broker is
away: that asks by a consumer of its own, which belongs to the group in name only.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.errors import made, refusal, translated
from streamer.client.confluent.partitions import librdkafkas, plain, with_notes
from streamer.client.interface import (
    ClientError,
    Given,
    Message,
    NotLetIn,
    Position,
    Taken,
    TopicPartition,
)
from streamer.client.librdkafka import NOTHING, Settings, settings_for

# So often within such a time it is two workers who go by one name.
SHUT_OUT_TIMES = 4
SHUT_OUT_WITHIN_S = 60.0
# Whoever is not let in for so long will not be: somebody must see to it. Shorter than that
# is a broker whose certificate is being changed, say.
REFUSED_S = 10.0
COMMITTED_S = 10.0  # until the group's coordinator must have answered
# What librdkafka mends itself, or says again in a way that matters.
PASSES = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._PARTITION_EOF,
}


class ConfluentMember:
    """`interface.Member` on librdkafka."""

    def __init__(self, bootstrap: str, group: str, extra: Settings = NOTHING) -> None:
        # Ends of partitions are of no interest here, and come as messages.
        settings = {"group.id": group, "enable.partition.eof": False, **extra}
        config = settings_for("consumer", bootstrap, settings)
        self._config = config | {"error_cb": self._heard}
        self._consumer = made(confluent_kafka.Consumer, self._config)
        self._asking = made(confluent_kafka.Consumer, asking(config))
        self._topics: list[str] = []
        # When somebody else, or what we were before, has had our name: the last times.
        self._shut_out: deque[float] = deque(maxlen=SHUT_OUT_TIMES)
        self._changes: list[Given | Taken] = []
        self._closing = False
        self._access = bootstrap, extra
        self._trying: threading.Thread | None = None
        self._refusal: NotLetIn | None = None
        self.in_trouble = False

    def subscribe(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        self._consumer.subscribe(
            self._topics, on_assign=self._given, on_revoke=self._taken, on_lost=self._lost
        )

    def _given(self, consumer: object, partitions: Iterable[Any]) -> None:
        if consumer is not self._consumer:
            return  # one that was shut out
        # Before the group may go on: it is of the generation that gives these.
        membership = self._consumer.consumer_group_metadata()
        self._consumer.assign([])
        self._changes.append(Given(tuple(map(plain, partitions)), membership))

    def _taken(self, consumer: object, partitions: list[Any]) -> None:
        if self._closing or consumer is not self._consumer:
            return
        if partitions:
            self._consumer.assign(self._consumer.position(partitions))
            self._consumer.pause(partitions)
        self._changes.append(Taken(tuple(map(plain, partitions)), lost=False))

    def _lost(self, consumer: object, partitions: Iterable[Any]) -> None:
        if consumer is not self._consumer:
            return
        self._consumer.unassign()
        self._changes.append(Taken(tuple(map(plain, partitions)), lost=True))

    def consume(self, limit: int, wait_s: float) -> Sequence[Message]:
        if self._refusal is not None:
            raise self._refusal
        # `consume(n, t)` waits until it has all n; so wait for one, then take the rest.
        found: list[Any] = self._consumer.consume(limit if wait_s <= 0 else 1, wait_s)
        if any(map(confluent_kafka.Message.error, found)):
            return [message for message in found if not self._is_error(message)]
        return found

    def _is_error(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.retriable() or error.code() in PASSES:
            return True
        if error.code() == KafkaError._FATAL and self._may_begin_anew():
            self._begin_anew()
            return True
        raise translated(error, "Reading as a member of the group")

    def _may_begin_anew(self) -> bool:
        """Whether it is likely that nobody else goes by our name.

        When an answer to joining gets lost, the group knows us by an id that we have never
        heard of, and takes us for somebody else. Two workers that do have the same name
        shut out each other again and again: the one that this happens to first gives up.
        """
        self._shut_out.append(time.monotonic())
        few = len(self._shut_out) < SHUT_OUT_TIMES
        return few or self._shut_out[-1] - self._shut_out[0] > SHUT_OUT_WITHIN_S

    def _begin_anew(self) -> None:
        """With another consumer; it has none of the partitions that this one had."""
        before, self._consumer = (
            self._consumer,
            made(confluent_kafka.Consumer, self._config),
        )
        # It may take its time to close.
        threading.Thread(target=before.close, name="shut out", daemon=True).start()
        self._changes.append(Taken((), lost=True))
        self.subscribe(self._topics)

    def _heard(self, error: KafkaError) -> None:
        """Called within `consume`: something is wrong with a connection, say."""
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self.in_trouble = True
        if refusal(error) is not None and (
            self._trying is None or not self._trying.is_alive()
        ):
            self._trying = threading.Thread(
                target=self._ask_again, name="not let in", daemon=True
            )
            self._trying.start()

    def _ask_again(self) -> None:
        """See whether we are let in after a while, as somebody who comes anew.

        librdkafka goes on trying for ever, and does not say when it has succeeded.
        """
        time.sleep(REFUSED_S)
        if self._closing:
            return
        try:
            ConfluentAdmin(*self._access).cluster()
        except NotLetIn as error:
            self._refusal = error
        except ClientError:
            pass  # it is away, which passes

    def changes(self) -> Sequence[Given | Taken]:
        changes, self._changes = self._changes, []
        return changes

    def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Position]:
        if not partitions:
            return {}
        asked = librdkafkas(dict.fromkeys(partitions, 0))
        # Nobody else takes what it has to say: that its broker was away, say.
        self._asking.consume(1000, 0)
        try:
            answer = self._asking.committed(asked, timeout=COMMITTED_S)
        except KafkaException as error:
            raise translated(error.args[0], "Asking how far the group is") from None
        for each in answer:
            if each.error:
                raise translated(
                    each.error, f"Asking how far the group is in {plain(each)}"
                )
        return {
            plain(each): Position(each.offset, each.metadata or "")
            for each in answer
            if each.offset >= 0
        }

    def read(self, positions: Mapping[TopicPartition, int]) -> None:
        wanted = librdkafkas(positions)
        self._consumer.assign(wanted)
        # One that was paused when it was taken has stayed so.
        self._consumer.resume(wanted)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._consumer.pause(librdkafkas(dict.fromkeys(partitions, 0)))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._consumer.resume(librdkafkas(dict.fromkeys(partitions, 0)))

    def let_go(self) -> None:
        self._consumer.unassign()

    def watermarks(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        found: dict[TopicPartition, tuple[int, int]] = {}
        for at in partitions:
            (asked,) = librdkafkas({at: 0})
            try:
                low, high = self._consumer.get_watermark_offsets(asked, cached=True)
            except (KafkaException, RuntimeError):
                continue  # not ours any more, or closed
            if high >= 0:
                found[at] = max(low, 0), high
        return found

    def commit(self, positions: Mapping[TopicPartition, Position]) -> None:
        try:
            answer = self._consumer.commit(
                offsets=with_notes(positions), asynchronous=False
            )
        except KafkaException as error:
            raise translated(error.args[0], "Committing positions") from None
        for each in answer:
            if each.error:
                raise translated(each.error, f"Committing the position in {plain(each)}")

    def close(self) -> None:
        self._closing = True
        self._asking.close()
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            raise ClientError(f"Leaving the group: {error}.") from None


def asking(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the consumer that asks, and never joins."""
    ours = {name: one for name, one in config.items() if name != "group.instance.id"}
    # What is wrong with the broker, the one that reads says as well.
    return {**ours, "log_level": 2}
