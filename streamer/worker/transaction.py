"""Exactly once: outputs, changelogs and positions in one transaction.

    records that are done  → outbox, open changes of tables, progress of lanes
    pour                     the outbox goes to the producer, as long as no commit runs
    commit                   changelog records, positions, commit; then the stores

A commit takes what is done and waits for nobody. While it is in its thread, records go on
being processed: what they send stays in the outbox, what they write in the open changes,
and both belong to the next transaction. The stores are written after the broker has
committed, each with the offset of its changelog that it stands for: a store is never ahead
of the log, and what it lacks after a crash is read from there.

How a commit can end:

    done            go on
    not now         the same call again
    must abort      nothing since the last commit has happened: `aborted` goes back to it
    nobody knows    the connection broke in between. A new producer of the same id ends the
                    transaction one way or the other, and the committed positions tell which
    fenced          we, or the broker, were silent for too long: as if nobody knew; or
                    another worker has our slot: then this one ends

At least once is the same without the transaction; at most once commits positions before
records are handled (`Pump`), and then has only outputs and changelogs to deliver.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from operator import length_hint
from typing import TYPE_CHECKING, Any, TypeVar

from streamer.client.interface import (
    ClientError,
    Failure,
    Fenced,
    Message,
    MustAbort,
    NotAMember,
    NotNow,
    Position,
    Producer,
    TopicPartition,
    TransactionalProducer,
    Unsendable,
)
from streamer.conf import AT_MOST_ONCE, EXACTLY_ONCE
from streamer.processing import Send
from streamer.state.table_partition import Changes, TablePartition
from streamer.worker.errors import WorkerFailed
from streamer.worker.shut_out import ShutOut

if TYPE_CHECKING:
    from streamer.worker.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

# Between two commits there is as long a pause as the last one took, so that they take half
# of the time at most; but those who wait for the next one do not wait for long.
PAUSE_MAX_S = 0.005
# Without a transaction nobody waits for a commit, while it keeps outputs waiting.
UNHURRIED_PAUSE_S = 0.05
OUTBOX_MAX = 100_000
# How long the same step is tried again before its outcome counts as unknown.
STUBBORN_S = 30.0
RETRY_S = 0.1
LOOK_S = 0.001


class Undone(Exception):
    """The transaction has not happened; its records are to be handled again."""


@dataclass
class Batch:
    """What one transaction holds, beside the records that were sent."""

    positions: dict[TopicPartition, Position]
    changes: dict[tuple[str, int], tuple[TablePartition, Changes]]
    """By changelog and partition."""
    sent: int
    # Where each changelog stands afterwards: behind the last record that we wrote.
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.positions or self.changes or self.sent)


class Transaction:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._conf = worker.conf
        self.transactional = worker.conf.guarantee == EXACTLY_ONCE
        self.outbox: list[Send] = []
        self._poured = 0
        # Why what was sent cannot be committed, if so.
        self._spoiled: ClientError | None = None
        self._begun = False
        # What records send waits in the outbox: a transaction is being committed that it
        # does not belong to, or outputs must have arrived before positions are committed.
        self._held = False
        self._producer: Producer | None = None
        # For changelogs: the same one, in a transaction.
        self._keeper: Producer | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._lock = asyncio.Lock()
        self._shut_out = ShutOut(worker.conf.transaction_timeout_ms / 1000)
        # Somebody waits for the next commit.
        self._asked: asyncio.Future[None] | None = None
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        # What the group knows; positions like these need no commit.
        self.committed: dict[TopicPartition, Position] = {}

    async def start(self) -> None:
        await self._in_thread(self._worker.patiently, self._open)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="commits")
        self._task.add_done_callback(self._worker.ended)

    async def stop(self) -> None:
        """Commit no more. What was not committed has not happened."""
        if self._task is not None:
            task, self._task = self._task, None
            task.remove_done_callback(self._worker.ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def _open(self) -> None:
        clients = self._worker.clients
        self._producer = self._keeper = clients.producer(self._worker.member_name)
        if not self.transactional and self._worker.app.tables:
            # Where a changelog stands afterwards is told by reports of success, which cost
            # a fourth of what producing does. Outputs need none.
            self._keeper = clients.keeper()
        self._begun = False

    @property
    def _producers(self) -> list[Producer]:
        found = dict.fromkeys((self._producer, self._keeper))
        return [one for one in found if one is not None]

    @property
    def staged(self) -> int:
        """Records sent by what is done, for the transaction that is open."""
        return len(self.outbox) + self._poured

    @property
    def queued(self) -> int:
        """Records that the producer has yet to deliver."""
        return sum(map(len, self._producers))

    async def _in_thread(self, step: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(step, *arguments))

    # When.

    def touched(self) -> None:
        """An actor has done all it had: it may be time for a commit."""
        self._wanted.set()

    async def _run(self) -> None:
        interval_s = self._conf.commit_interval_ms / 1000
        began = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(began + interval_s - time.monotonic()):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            early_s = self._not_before - time.monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
            if self._is_due(began, interval_s):
                await self.commit()
                began = time.monotonic()

    def _is_due(self, began: float, interval_s: float) -> bool:
        now = time.monotonic()
        if now - began >= interval_s or self._asked or self._worker.is_drained:
            return True
        return bool(self._worker.changed_keys >= self._conf.commit_changes_max)

    async def room(self) -> None:
        """Wait while too much waits for a commit to end, or for the producer."""
        self.pour()
        while len(self.outbox) > OUTBOX_MAX:
            if self._held:
                self._room.clear()
                await self._room.wait()
            else:
                self.pour()
                await asyncio.sleep(RETRY_S / 10 if self.outbox else 0)

    # What is sent.

    def pour(self) -> None:
        """Give the producer what records have sent, unless a commit holds it back."""
        if self.outbox and not self._held:
            del self.outbox[: self._produce(self.outbox)]

    def _produce(self, sends: list[Send]) -> int:
        """Queue as many as there is room for, and say how many."""
        assert self._producer is not None
        self._begin()
        left, done = iter(sends), len(sends)
        try:
            # Nothing in Python for each of them.
            deque(starmap(self._producer.produce, left), maxlen=0)
        except BufferError:
            done -= length_hint(left) + 1  # that one and the rest in a moment
        except Exception as error:
            self._spoil(error, sends[done - length_hint(left) - 1][0])
        self._poured += done
        self._producer.poll(0)
        return done

    def _begin(self) -> None:
        if not self._begun and self.transactional:
            try:
                self._transactional_producer().begin()
            except ClientError as error:
                self._spoiled = self._spoiled or error
        self._begun = True

    def _spoil(self, error: Exception, topic: str) -> None:
        """A record was not taken: nothing of this transaction will be. The commit says so;
        here may be anybody, an agent that has nothing to do with it, say."""
        assert self._producer is not None
        if self._spoiled is None:
            self._spoiled = self._producer.meaning(error, topic)

    # The commit.

    async def commit_soon(self) -> None:
        """Have the next commit, which takes all that is done by now, and wait for it."""
        self._asked = self._asked or asyncio.get_running_loop().create_future()
        self._wanted.set()
        await asyncio.shield(self._asked)

    async def commit(self) -> bool:
        """Commit what is done; whether there was anything. Waits for nobody's record."""
        async with self._lock:
            # From here on what is done belongs to the next transaction.
            self._held, began = True, time.monotonic()
            asked, self._asked = self._asked, None
            try:
                return await self._commit(*self._taken())
            finally:
                if asked is not None:
                    asked.set_result(None)
                self._held = False
                ended = time.monotonic()
                took_s = min(PAUSE_MAX_S, ended - began)
                pause_s = took_s if self.transactional else UNHURRIED_PAUSE_S
                self._not_before = ended + pause_s
                self._room.set()

    def _taken(self) -> tuple[list[Send], Batch]:
        """All that is done by now, in one moment: positions and their effects."""
        sends = self.outbox[:]
        self.outbox.clear()
        poured, self._poured = self._poured, 0
        changes = {
            (changelog, part.number): (part, changes)
            for changelog, part in self._worker.tables_here()
            if part.changed and (changes := part.close_changes())
        }
        positions = self._worker.positions_to_commit()
        return sends, Batch(positions, changes, poured + len(sends))

    async def _commit(self, sends: list[Send], batch: Batch) -> bool:
        if batch.empty:
            return False
        began = time.monotonic()
        try:
            self._begin()
            await self._produce_all(sends)
            await self._produce_changes(batch)
            await self._finish(batch)
        except Undone as reason:
            await self._worker.undo(str(reason))
        else:
            self._worker.counters.committed(time.monotonic() - began)
        return True

    async def _produce_all(self, sends: list[Send]) -> None:
        while sends:
            del sends[: self._produce(sends)]
            if sends:
                await asyncio.sleep(RETRY_S / 10)
        self._poured = 0

    async def _produce_changes(self, batch: Batch) -> None:
        keeper = self._keeper
        assert keeper is not None
        produce = keeper.produce
        for where, (_, changes) in batch.changes.items():
            changelog, number = where
            note = keeper.noting(partial(_note_end, batch.ends, where))
            last = len(changes)
            for key, value in changes.items():
                last -= 1
                while True:
                    try:
                        if last:
                            produce(changelog, value, key, number)
                        else:
                            produce(changelog, value, key, number, note)
                        break
                    except BufferError:
                        keeper.poll(0)
                        await asyncio.sleep(RETRY_S / 10)
                    except Exception as error:
                        self._spoil(error, changelog)
                        return
            self._worker.counters.changes += len(changes)
        keeper.poll(0)

    async def _finish(self, batch: Batch) -> None:
        """In its thread: make it durable, then write the stores."""
        spoiled, self._spoiled = self._spoiled, None
        try:
            if spoiled and self._conf.guarantee != AT_MOST_ONCE:
                raise spoiled
            if self.transactional:
                await self._in_thread(self._commit_transaction, batch)
            else:
                await self._deliver()
                self._held = False
                if batch.positions:
                    await self._worker.pump.commit(batch.positions)
        except (MustAbort, NotAMember) as error:
            is_refused = isinstance(error, Unsendable)
            await self._in_thread(self._abort, is_refused)
            if is_refused:
                self._worker.caution.refused(error.problem, batch.positions)
            raise Undone(error.problem) from error
        except ClientError as error:
            if not await self._in_thread(self._has_happened, batch, error):
                raise Undone(error.problem) from error
        self._begun = False
        await self._in_thread(self._write_stores, batch)
        for part, _ in batch.changes.values():
            part.committed()
        self.committed |= batch.positions
        self._worker.caution.committed(self.committed)
        self._worker.counters.sent += batch.sent

    def _commit_transaction(self, batch: Batch) -> None:
        producer: TransactionalProducer = self._transactional_producer()
        if batch.positions:
            membership = self._worker.membership()
            self._stubbornly(partial(producer.send_offsets, batch.positions, membership))
        self._stubbornly(producer.commit)

    def _transactional_producer(self) -> TransactionalProducer:
        producer: Any = self._producer
        found: TransactionalProducer = producer
        return found

    def _stubbornly(self, step: Callable[[], None]) -> None:
        """Again and again, while the broker says that it may go later."""
        until = time.monotonic() + STUBBORN_S
        while True:
            try:
                return step()
            except NotNow:
                if time.monotonic() > until or self._worker.stopping_at_once:
                    raise
                time.sleep(RETRY_S)

    async def _deliver(self) -> None:
        """Without a transaction: outputs and changelogs first, then the positions.

        Polled by the loop: each report of a delivery wants the lock of Python, for which a
        thread would have to wait each time.
        """
        producers, until = self._producers, time.monotonic() + STUBBORN_S
        for producer in producers:
            producer.poll(0)
            while len(producer) and time.monotonic() < until:
                await asyncio.sleep(LOOK_S)
                producer.poll(0)
        if not self.queued and not any(producer.failed for producer in producers):
            return
        failures: list[Failure] = []
        for producer in producers:
            failures += producer.failures
            producer.failures.clear()
            producer.failed = 0
        refused = next((one for one in failures if one.refused), None)
        problem = (refused or failures[0]).problem if failures else "no answer"
        if self._conf.guarantee == AT_MOST_ONCE:
            log.error("Records did not arrive, and are lost: %s.", problem)
            return
        # Only what was refused is the fault of the record that sent it.
        kind = MustAbort if refused is None else Unsendable
        raise kind(f"A record did not arrive: {problem}.")

    def _abort(self, anew: bool = False) -> None:
        """`anew`: with another producer. One that has given up a record has a gap in its
        numbers, learns that in the next transaction only, and fails that one too."""
        self._worker.counters.aborts += 1
        if anew or not self.transactional:
            return self._reopen()
        producer = self._transactional_producer()
        try:
            self._stubbornly(producer.abort)
            self._begun = False
        except ClientError as error:
            log.warning("The transaction cannot be aborted: %s", error.problem)
            self._reopen(error)

    def _reopen(self, why: ClientError | None = None) -> None:
        """A new producer of the same id: that ends what the old one has left open.

        One that is shut out was mostly silent for too long, or its broker was. It may also
        be that another worker has our slot: then the group tells us so as well, and ends
        us. Until then positions are safe, for the group takes none from us.
        """
        if isinstance(why, Fenced) and self._shut_out.again():
            raise self._fenced(why) from why
        for producer in self._producers:
            producer.forget()
        until = time.monotonic() + self._conf.max_poll_interval_ms / 1000
        while True:
            try:
                return self._open()
            except ClientError as error:
                if time.monotonic() > until or self._worker.stopping_at_once:
                    raise WorkerFailed(
                        f"No transactions any more: {error.problem}", remedy=error.remedy
                    ) from error
                log.warning("No producer yet: %s", error.problem)
                time.sleep(RETRY_S * 5)

    def _has_happened(self, batch: Batch, error: ClientError) -> bool:
        """The answer got lost. Whether the transaction was committed all the same."""
        log.warning("What became of the last transaction is not known: %s", error.problem)
        if not self.transactional:
            return False
        self._reopen(error)
        if not batch.positions:
            # Nothing to compare; changes alone are made again from what was not committed.
            return False
        found = self._worker.committed_by_group(list(batch.positions))
        happened = all(found.get(at) == where for at, where in batch.positions.items())
        log.warning("It was %s.", "committed" if happened else "aborted")
        return happened

    def _write_stores(self, batch: Batch) -> None:
        for where, (part, changes) in batch.changes.items():
            # Where it ends is not known of records that, at most once, did not arrive, nor
            # where the answer got lost: by now there may be records of somebody else. So
            # the store stays where it was, and what it has already is read once more.
            end = batch.ends.get(where, part.store.position or 0)
            part.store.write(changes, end)

    def _fenced(self, error: ClientError) -> WorkerFailed:
        return WorkerFailed(
            f"{self._worker.slot_name} may write no more: another worker has taken over"
            " its slot, or it was silent for longer than"
            f" {self._conf.transaction_timeout_ms} ms (transaction.timeout.ms)."
            f" {error.problem}",
            remedy="Start it again, if nobody does that for you. Nothing is lost: others,"
            " or it, go on from its last commit.",
        )

    async def abandon(self) -> None:
        """Abort: nothing since the last commit has happened; others go on from there."""
        async with self._lock:
            self.forget()
            if self._begun:
                await self._in_thread(self._abort)

    def forget(self) -> None:
        """Nothing since the last commit has happened."""
        self.outbox.clear()
        self._poured = 0
        self._spoiled = None
        for _, part in self._worker.tables_here():
            part.aborted()


def _note_end(
    ends: dict[tuple[str, int], int], where: tuple[str, int], message: Message
) -> None:
    ends[where] = message.offset() + 1


def differing(
    positions: Mapping[TopicPartition, Position],
    committed: Mapping[TopicPartition, Position],
) -> dict[TopicPartition, Position]:
    return {at: one for at, one in positions.items() if committed.get(at) != one}
