"""All transactional ids: their requests one after another, and what is written of them.

    a request → `transaction.py` decides → written down → it holds, and is answered

Changes of one id come one at a time. A request that meets a transaction whose outcome is
decided waits until its markers are written, for a second or so: to be told to ask again
costs a client more than that.

To end a transaction, in this order, each safe on disk before the next is written:

    what the transaction wrote, in all its partitions
    Prepare{Commit,Abort}                               the client is answered
    the markers (`markers.py`)
    Complete{Commit,Abort}

A power cut between any two comes out right: at start what was prepared is completed, and
the markers are written again. So Complete* needs no sync of its own; it is safe at the
latest when the next transaction of the id is answered, which is further on in that log.

A log that cannot be read leaves the coordinator unavailable: nothing is decided then,
nothing is repaired, and no transaction can be written to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from streamer.broker.catalog import NotWritten
from streamer.broker.names import Place, Producer
from streamer.broker.state_log import StateLog
from streamer.broker.transactions import records, transaction as rules
from streamer.broker.transactions.hanging import Hanging, find_hanging
from streamer.broker.transactions.markers import Markers
from streamer.broker.transactions.transaction import Outcome, Phase, Transaction
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode
from streamer.wire.record import Record
from streamer.wire.state_records import Malformed, UnsupportedVersion

if TYPE_CHECKING:
    from streamer.broker.core import Broker

log = logging.getLogger(__name__)

TOPIC = "__transaction_state"
# How long a request waits for those before it, and then for markers to be written.
PATIENCE_SECONDS = 1.0

# What becomes of a transaction (None: there is no such id) at this time.
Decide: TypeAlias = Callable[[Transaction | None, int], Outcome]


class _Entry:
    """One transactional id."""

    __slots__ = ("completion", "transaction", "turn", "unmarked", "users")

    def __init__(self, transaction: Transaction | None = None) -> None:
        self.transaction = transaction
        """None until the first record of it is safe, and once it is forgotten."""
        self.turn = asyncio.Lock()
        self.users = 0
        """Who has the turn or waits for it."""
        self.unmarked: frozenset[Place] = frozenset()
        """Where the markers of a prepared transaction have yet to be written."""
        self.completion: asyncio.Task[None] | None = None
        """What is writing them, if it is under way."""

    @property
    def is_prepared(self) -> bool:
        return self.transaction is not None and self.transaction.is_prepared


class TransactionCoordinator:
    def __init__(self, broker: Broker) -> None:
        config = broker.config
        self._broker = broker
        self._clock = broker.clock
        self._entries: dict[str, _Entry] = {}
        # Those with a transaction that goes on, or is not completed: few of many.
        self._busy: dict[str, _Entry] = {}
        self.markers = Markers(broker)
        self.log = StateLog(
            broker,
            TOPIC,
            partitions=config.number("transaction.state.log.num.partitions"),
            configs={"segment.bytes": config.text("transaction.state.log.segment.bytes")},
        )

    def __iter__(self) -> Iterator[Transaction]:
        for entry in self._entries.values():
            if entry.transaction is not None:
                yield entry.transaction

    def get(self, transactional_id: str) -> Transaction | None:
        entry = self._entries.get(transactional_id)
        return None if entry is None else entry.transaction

    @property
    def is_available(self) -> bool:
        return self.log.problem is None

    # Start and stop.

    async def load(self) -> None:
        """Read what was written down, complete what was decided, and end what hangs. That
        takes markers, and the waiting for their flush; groups have only to read."""
        self._replay()
        if self.log.problem is not None:
            log.error(
                "%s. Nobody can use transactions, and readers of committed records wait "
                "before those that are open.\n"
                "  -> `streamer log verify %s` shows what is damaged.",
                self.log.problem,
                self._broker.directory.path,
            )
            return
        await self._complete_prepared()
        found = find_hanging(self._broker.directory.partitions(), list(self))
        await asyncio.gather(*map(self._end_hanging, found))

    def _replay(self) -> None:
        for _, replayed in self.log.replay():
            for record in replayed.records:
                try:
                    name, transaction = records.read(record)
                except (Malformed, UnsupportedVersion, ValueError) as error:
                    self.log.problem = f"A record of {TOPIC} cannot be read: {error}"
                    return
                if transaction is None:
                    self._entries.pop(name, None)
                else:
                    self._entries[name] = _Entry(transaction)
        for entry in self._entries.values():
            assert entry.transaction is not None
            self._keep(entry, entry.transaction)

    async def _complete_prepared(self) -> None:
        prepared = [entry for entry in self._busy.values() if entry.is_prepared]
        await asyncio.gather(*map(self._complete, prepared))

    async def _end_hanging(self, hanging: Hanging) -> None:
        log.warning(
            "The transaction of producer %d in %s-%d was left open: %s. It is %s now.",
            hanging.producer.id,
            *hanging.place,
            hanging.why,
            "committed" if hanging.commit else "aborted",
        )
        await self.markers.write([hanging.place], hanging.producer, commit=hanging.commit)

    def close(self) -> None:
        """Leave what is not completed to the next start."""
        for entry in self._busy.values():
            if entry.completion is not None:
                entry.completion.cancel()

    # Requests.

    async def init(
        self, transactional_id: str, timeout_ms: int, expected: Producer | None
    ) -> Producer | ErrorCode:
        """InitProducerId: the producer from now on; whoever was it before is fenced."""
        if not 0 < timeout_ms <= self._broker.config.number("transaction.max.timeout.ms"):
            return ErrorCode.INVALID_TRANSACTION_TIMEOUT
        try:
            new_producer_id = await self._broker.catalog.next_producer_id()
        except NotWritten:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE

        def decide(transaction: Transaction | None, now_ms: int) -> Outcome:
            return rules.init(
                transaction,
                transactional_id,
                timeout_ms,
                expected,
                new_producer_id=new_producer_id,
                now_ms=now_ms,
            )

        outcome = await self._change(transactional_id, decide)
        if isinstance(outcome, Transaction) and outcome.is_prepared:
            # What was going on is aborted first; now it is the turn of the request itself.
            outcome = await self._change(transactional_id, decide)
        return outcome if isinstance(outcome, ErrorCode) else outcome.producer

    async def add_partitions(
        self, transactional_id: str, producer: Producer, places: set[Place]
    ) -> ErrorCode:
        return _code(
            await self._change(
                transactional_id,
                lambda transaction, now_ms: rules.add_partitions(
                    transaction, producer, places, now_ms=now_ms
                ),
            )
        )

    async def end(
        self, transactional_id: str, producer: Producer, *, commit: bool
    ) -> ErrorCode:
        """EndTxn: what it decides is safe on disk when this returns."""
        return _code(
            await self._change(
                transactional_id,
                lambda transaction, now_ms: rules.end(
                    transaction, producer, commit=commit, now_ms=now_ms
                ),
            )
        )

    def verify(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        topic: str,
        partition: int,
    ) -> ErrorCode:
        """Whether the producer may write to the partition, in its transaction: see
        `transaction.verify` for what is said if not."""
        if not self.is_available:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        transaction = self.get(transactional_id)
        producer, place = Producer(producer_id, epoch), Place(topic, partition)
        return rules.verify(transaction, producer, place)

    # From time to time.

    async def abort_late(self) -> None:
        """Abort what takes too long; try again to complete what could not be."""
        if self._broker.offline is not None:
            return
        for entry in self._busy.values():
            if entry.is_prepared and entry.completion is None:
                self._complete(entry, again=True)
        now_ms = self._clock.now_ms()
        late = [
            entry.transaction
            for entry in self._busy.values()
            if entry.transaction is not None and rules.is_late(entry.transaction, now_ms)
        ]
        await asyncio.gather(*map(self._abort_late, late))

    async def _abort_late(self, transaction: Transaction) -> None:
        name = transaction.transactional_id
        outcome = await self._change(
            name, lambda now, now_ms: rules.time_out(now, now_ms=now_ms)
        )
        if isinstance(outcome, Transaction):
            log.warning(
                "The transaction of %r took longer than %d ms and is aborted; its producer "
                "has to begin again.",
                name,
                transaction.timeout_ms,
            )

    async def expire(self) -> None:
        """Forget the ids that nobody has used for long."""
        expiration_ms = self._broker.config.number("transactional.id.expiration.ms")
        for name, entry in list(self._entries.items()):
            now_ms, transaction = self._clock.now_ms(), entry.transaction
            if (
                transaction is not None
                and not entry.users
                and rules.is_expired(transaction, expiration_ms, now_ms)
            ):
                await self._forget(name, entry)

    async def _forget(self, name: str, entry: _Entry) -> None:
        """Whoever comes back to it meanwhile waits, and then finds that it is gone."""
        entry.users += 1
        try:
            async with entry.turn:
                tombstone = records.tombstone(name, self._clock.now_ms())
                await self.log.append(name, [tombstone])
                entry.transaction = None
        except NotWritten:
            pass  # Next time, then.
        finally:
            self._leave(name, entry)

    # One change.

    async def _change(self, transactional_id: str, decide: Decide) -> Outcome:
        """What `decide` says, once it holds. An error code has changed nothing."""
        if not self.is_available:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        entry = self._entries.get(transactional_id)
        if entry is None:
            entry = self._entries[transactional_id] = _Entry()
        entry.users += 1
        try:
            if not await _take(entry.turn):
                return ErrorCode.CONCURRENT_TRANSACTIONS
            try:
                return await self._change_in_turn(entry, decide)
            finally:
                entry.turn.release()
        except NotWritten:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        finally:
            self._leave(transactional_id, entry)

    def _leave(self, transactional_id: str, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users and entry.transaction is None:
            del self._entries[transactional_id]

    async def _change_in_turn(self, entry: _Entry, decide: Decide) -> Outcome:
        outcome = decide(entry.transaction, self._clock.now_ms())
        if outcome is ErrorCode.CONCURRENT_TRANSACTIONS and entry.completion is not None:
            await asyncio.wait([entry.completion], timeout=PATIENCE_SECONDS)
            outcome = decide(entry.transaction, self._clock.now_ms())
        if isinstance(outcome, Transaction):
            await self._write(entry, outcome)
        return outcome

    async def _write(self, entry: _Entry, transaction: Transaction) -> None:
        if transaction.phase == Phase.PREPARE_COMMIT:
            # A power cut must not keep the outcome and take what it is about.
            await self._flush(transaction)
        await self.log.append(transaction.transactional_id, [self._record(transaction)])
        self._keep(entry, transaction)
        if transaction.is_prepared and self._broker.offline is None:
            self._complete(entry)

    def _keep(self, entry: _Entry, transaction: Transaction) -> None:
        """From now on it is so."""
        entry.transaction = transaction
        entry.unmarked = transaction.partitions if transaction.is_prepared else frozenset()
        if transaction.is_prepared or transaction.phase == Phase.ONGOING:
            self._busy[transaction.transactional_id] = entry
        else:
            self._busy.pop(transaction.transactional_id, None)

    def _record(self, transaction: Transaction) -> Record:
        return records.write(transaction, self._clock.now_ms())

    async def _flush(self, transaction: Transaction) -> None:
        partitions = [
            partition
            for place in transaction.partitions
            if (partition := self._broker.catalog.partition(*place)) is not None
        ]
        for partition in partitions:
            if partition.high_watermark < partition.end:
                self._broker.written(partition)
        await asyncio.gather(*map(self._flushed, partitions))

    async def _flushed(self, partition: Partition) -> None:
        try:
            await self._broker.flushed(partition, partition.end - 1)
        except NotWritten:
            found = self._broker.catalog.partition(partition.topic, partition.index)
            if found is partition:
                raise
            # It was deleted, with what was written there.

    def _complete(self, entry: _Entry, *, again: bool = False) -> asyncio.Task[None]:
        entry.completion = asyncio.get_running_loop().create_task(
            self._write_markers(entry, again)
        )
        return entry.completion

    async def _write_markers(self, entry: _Entry, again: bool) -> None:
        prepared = entry.transaction
        assert prepared is not None
        try:
            await asyncio.sleep(0)  # Who has asked for it is answered first.
            entry.unmarked = await self.markers.write(
                entry.unmarked, prepared.producer, commit=prepared.is_commit
            )
            if entry.unmarked:
                if not again:
                    self._tell_of_unmarked(prepared, entry.unmarked)
                return  # `abort_late` comes by.
            done = rules.completed(prepared, now_ms=self._clock.now_ms())
            await self.log.append_unhurried(prepared.transactional_id, [self._record(done)])
            self._keep(entry, done)
        except NotWritten:
            pass  # That was told; `abort_late` comes by.
        finally:
            entry.completion = None

    def _tell_of_unmarked(
        self, transaction: Transaction, unmarked: frozenset[Place]
    ) -> None:
        log.warning(
            "The end of the transaction of %r cannot be written to %s. Who reads there and "
            "the producer have to wait; it is tried again and again.\n"
            "  -> Why that is so was told for each of them.",
            transaction.transactional_id,
            ", ".join(f"{topic}-{number}" for topic, number in sorted(unmarked)),
        )


async def _take(turn: asyncio.Lock) -> bool:
    """Whether the turn came in time."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await turn.acquire()
    except TimeoutError:
        return False
    return True


def _code(outcome: Outcome) -> ErrorCode:
    return outcome if isinstance(outcome, ErrorCode) else ErrorCode.NONE
