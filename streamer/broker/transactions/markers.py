"""A transaction's end, written behind its records in every partition.

    the outcome is safe → a marker in each partition → all flushed → the groups are told

Readers of committed records wait for the marker. A partition that was deleted needs none.
One that is offline gets its marker once it is back: the transaction stays prepared.
Writing a marker twice does no harm, so after a crash all are written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamer.broker.catalog import NotWritten
from streamer.broker.names import Place, Producer
from streamer.log.errors import Refused
from streamer.log.partition import Partition
from streamer.wire.batch import Marker
from streamer.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamer.broker.core import Broker

log = logging.getLogger(__name__)

# The disk may take it later, or after a restart.
AGAIN = frozenset({ErrorCode.KAFKA_STORAGE_ERROR})
# Somebody has written markers by hand; nothing of the transaction is open there any more.
SUPERSEDED = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH})


class Markers:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def write(
        self, places: Iterable[Place], producer: Producer, *, commit: bool
    ) -> frozenset[Place]:
        """Write them all; where it has to be tried again."""
        codes = await self.write_each(places, producer, commit=commit)
        for place, code in codes.items():
            if code in SUPERSEDED:
                log.warning(
                    "%s-%d takes no end of the transaction of producer %d, epoch %d: it "
                    "knows a later epoch.",
                    *place,
                    *producer,
                )
        return frozenset(place for place, code in codes.items() if code in AGAIN)

    async def write_each(
        self,
        places: Iterable[Place],
        producer: Producer,
        *,
        commit: bool,
        coordinator_epoch: int | None = None,
    ) -> dict[Place, ErrorCode]:
        """Write a marker to each place; what came of it, once it is safe."""
        codes: dict[Place, ErrorCode] = {}
        appended: list[tuple[Place, Partition, int]] = []
        for place in places:
            partition = self._broker.catalog.partition(*place)
            if partition is None:
                codes[place] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                continue
            epoch = coordinator_epoch
            if epoch is None:
                epoch = self._epoch(partition, producer)
            try:
                offset = self._append(partition, producer, Marker(commit, epoch))
            except Refused as refused:
                codes[place] = refused.code
            else:
                appended.append((place, partition, offset))
        flushes = [self._flushed(*one) for one in appended]
        for one, code in zip(appended, await asyncio.gather(*flushes), strict=True):
            place = one[0]
            codes[place] = code
            if not code and place.topic == self._broker.groups.log.topic:
                self._broker.groups.finish(producer.id, place.partition, commit=commit)
        return codes

    def _epoch(self, partition: Partition, producer: Producer) -> int:
        """Our starts are counted, so that a later coordinator is told from an earlier one.
        An administrator may have written any number: ours is never below it."""
        state = partition.producer_state(producer.id)
        known = -1 if state is None else state.coordinator_epoch
        return max(self._broker.catalog.starts, known)

    def _append(self, partition: Partition, producer: Producer, marker: Marker) -> int:
        now_ms = self._broker.clock.now_ms()
        self._broker.check_writable()
        try:
            appended = partition.append_marker(*producer, marker, now_ms=now_ms)
        except Refused as refused:
            self._broker.append_refused(partition, refused)
            raise
        self._broker.written(partition)
        return appended.last_offset

    async def _flushed(self, place: Place, partition: Partition, offset: int) -> ErrorCode:
        try:
            await self._broker.flushed(partition, offset)
        except NotWritten as error:
            if self._broker.catalog.partition(*place) is not partition:
                return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return error.code
        return ErrorCode.NONE
