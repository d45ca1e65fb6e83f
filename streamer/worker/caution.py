"""Caution: finding the record whose sends no broker takes.

A record that was sent may be refused when its handler has long gone on: too large for its
topic, say. The transaction fails, and nothing since the last commit has happened. Which of
a thousand records was it? For a while each is handled alone and committed before the next,
through the whole worker. The one whose transaction fails again is the one; when it comes
the next time, that is raised where its handler stands, and its agent's policy decides as it
would for any error.

    refused      a transaction has failed for what was sent in it: caution from now on
    turn         an actor may take a record, when the one before it is committed
    taken        that record is alone in the worker
    pass_on      the actor found none, or has been stopped: the turn is another's
    committed    all that was in that transaction is behind us: as always again
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamer.client.interface import Message, Position, TopicPartition
from streamer.worker.errors import SendFailed
from streamer.worker.positions import has_reached

if TYPE_CHECKING:
    from streamer.worker.actor import Actor
    from streamer.worker.worker import Worker

Record = tuple[str, TopicPartition, int]
"""Feed, partition, offset."""


class Caution:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # How far the transactions that failed would have come.
        self._until: dict[TopicPartition, Position] = {}
        self._alone: Record | None = None
        self._whose: Actor | None = None
        self._culprits: dict[Record, str] = {}
        # Fair: who has waited longest comes next.
        self._turn = asyncio.Lock()

    @property
    def on(self) -> bool:
        return bool(self._until)

    def limit(self, records: int) -> int:
        return 1 if self._until else records

    async def turn(self, actor: Actor) -> None:
        """Wait until no other record is in hand and the last one is committed."""
        if self._whose is actor:
            if self._alone is not None:
                await self._worker.transaction.commit_soon()
            self.pass_on(actor)
        if not self._until:
            return
        await self._turn.acquire()
        self._whose = actor
        if not self._until:
            self.pass_on(actor)

    def pass_on(self, actor: Actor) -> None:
        if self._whose is actor:
            self._let_go()

    def taken(self, feed: str, message: Message) -> None:
        """This record is handled alone. Raises SendFailed if we know better."""
        at = TopicPartition(message.topic(), message.partition())
        self._alone = (feed, at, message.offset())
        problem = self._culprits.pop(self._alone, None)
        if problem is not None:
            raise SendFailed(problem, remedy="Send what the topic takes.")

    def refused(self, problem: str, positions: Mapping[TopicPartition, Position]) -> None:
        """A transaction that would have come so far has failed for a record in it."""
        if self._alone is not None:
            self._culprits[self._alone] = problem
        self._until = {**positions, **self._until}
        self._let_go()

    def committed(self, committed: Mapping[TopicPartition, Position]) -> None:
        """Over, once all is behind us that was in the transaction that failed."""
        if not self._until:
            return
        self._until = {
            at: goal
            for at, goal in self._until.items()
            if at in committed and not has_reached(committed[at], goal)
        }
        if not self._until:
            self._let_go()

    def _let_go(self) -> None:
        if self._whose is not None:
            self._whose = self._alone = None
            self._turn.release()
