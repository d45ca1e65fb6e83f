"""Actor: runs an agent's function over its stream, and deals with records that fail.

    take a run from the feed → the stream gives its records to the user's code, one by one
    the code comes back for the next    the record is done; its effects are kept
    the code raises                     its effects are dropped, and the agent's policy
                                        says what becomes of the record; then the function
                                        is started anew, as it has ended

A function that returns is started anew as well, as long as it handles records: an actor
that sits there and does nothing would hold up its partitions unseen.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from streamer import processing
from streamer.agent import Agent, InvalidAgent
from streamer.channel import Line, Passed
from streamer.client.interface import Message, TopicPartition
from streamer.codecs import DecodeError
from streamer.policy import Policy, Verdict, chosen
from streamer.processing import Hand, Run
from streamer.stream import Cut, Stream
from streamer.topic import Topic
from streamer.worker.errors import RecordFailed, SendFailed, WorkerFailed

if TYPE_CHECKING:
    from streamer.worker.crew import Crew

log = logging.getLogger(__name__)

TRACE_CHARACTERS_MAX = 8000
# Among so many records whose end the user decides, look for those that are done.
OPEN_MANY = 100


class Actor:
    """The origin of an agent's stream: `stream.Origin`."""

    def __init__(self, crew: Crew, number: int, only: int | None = None) -> None:
        self.crew = crew
        self.number = number
        # The one partition it handles, where partitions are isolated.
        self.only = only
        self.hand = Hand(crew.worker.transaction.outbox)
        # The run in hand is to be handled from its first record that is not done.
        self._again = False
        # Where the user says when a record is done (`noack`): those he has and has not
        # said it of, and those that a function that has ended has left.
        self._open: list[Run] = []
        self._open_many = OPEN_MANY
        self._left: list[Run] = []
        self._last: Run | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def agent(self) -> Agent[Any]:
        return self.crew.agent

    def start(self) -> None:
        name = f"{self.agent.name}-{self.number}"
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)
        self._task.add_done_callback(self.crew.worker.ended)

    async def stop(self) -> None:
        """Let go of the record in hand, at once; nothing of it has happened."""
        if self._task is not None:
            task, self._task = self._task, None
            task.remove_done_callback(self.crew.worker.ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.crew.worker.caution.pass_on(self)
        self.hand.drop()
        if (run := self.hand.run) is not None and isinstance(run.lane, Line):
            run.lane.put_back(run)
        self.hand.run = None
        self._again = False
        self._open, self._left, self._last = [], [], None

    @property
    def is_running(self) -> bool:
        return self._task is not None

    async def _run(self) -> None:
        processing.hold(self.hand)
        while True:
            self.hand.message = None
            stream: Stream[Any] = Stream(self.agent.topic, self)
            try:
                await self._handle(self.agent.fun(stream))
            except WorkerFailed:
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something that the handler has awaited was cancelled, not the handler.
                await self._failed(error)
            except Exception as error:
                await self._failed(error)
            else:
                self._returned()
            self._leave()

    async def _handle(self, running: Awaitable[Any] | AsyncIterator[Any]) -> None:
        if inspect.isawaitable(running):
            await running
            return
        if not inspect.isasyncgen(running):
            raise WorkerFailed(
                f"Agent {self.agent.name} is no async function.",
                remedy=InvalidAgent.remedy,
            )
        async with aclosing(running):
            async for result in running:
                await self.crew.yielded(result, self.hand)

    def _returned(self) -> None:
        if self.hand.message is None:
            raise WorkerFailed(
                f"Agent {self.agent.name} has returned without reading its stream.",
                remedy="An agent goes on for ever: `async for value in stream: ...`.",
            )
        run = self.hand.run
        if run is not None and not run.is_done and not run.manual:
            # It has left the loop: with the record in hand it is done.
            self._done(run)

    def _done(self, run: Run) -> None:
        run.done = len(run.messages) if run.whole else run.done + 1
        self.hand.keep()
        self._again = not run.is_done

    def _leave(self) -> None:
        """The function has ended, and what it has not said to be done is handled anew."""
        self._note_open()
        if self.hand.run is not None and self.hand.run.manual:
            self.hand.run, self._again = None, False
        self._left += [run for run in self._open if not run.is_done]
        self._open = []

    def _note_open(self) -> None:
        last, self._last = self._last, None
        if last is not None and last.manual and not last.is_done:
            self._open.append(last)
            if len(self._open) > self._open_many:
                self._open = [run for run in self._open if not run.is_done]
                self._open_many = OPEN_MANY + 2 * len(self._open)

    # What a stream asks.

    async def next(self, topic: Topic[Any], limit: int) -> Run:
        feed = self.crew.feed(topic)
        if (run := self._not_done()) is not None:
            return run
        if self.agent.concurrency > 1:
            limit = 1
        if isinstance(feed, Line):
            return self._in_no_transaction(await feed.next(limit))
        await self._before_next()
        caution = self.crew.worker.caution
        while True:
            if caution.on:
                await caution.turn(self)
            run = feed.take(caution.limit(limit), self.only)
            if run is not None:
                break
            caution.pass_on(self)
            await feed.wait()
        if limit == 1 and feed.waiting:
            feed.wake()
        return self._taken(run)

    async def batch(self, topic: Topic[Any], size: int, within_s: float) -> Run:
        feed = self.crew.feed(topic)
        if (run := self._not_done()) is not None:
            return run
        if isinstance(feed, Line):
            return self._in_no_transaction(await feed.batch(size, within_s))
        await self._before_next()
        caution = self.crew.worker.caution
        while True:
            if caution.on:
                await caution.turn(self)
            run, wait_s = feed.take_batch(caution.limit(size), within_s, self.only)
            if run is not None:
                break
            caution.pass_on(self)
            await feed.wait(wait_s)
        return self._taken(run)

    def _not_done(self) -> Run | None:
        """What was given before and is not done comes first."""
        self._note_open()
        run = self.hand.run
        if run is not None and not run.is_done:
            if not self._again:
                # The function has left one loop and begun another.
                self._done(run)
            self._again = False
            if not run.is_done:
                return run.again()
        while self._left:
            run = self._left.pop(0)
            if not run.is_done:
                return self._taken(run.again())
        return None

    async def _before_next(self) -> None:
        transaction = self.crew.worker.transaction
        # What was sent is on its way before others have their turn: one for each run.
        transaction.pour()
        await asyncio.sleep(0)
        await transaction.room()

    def _taken(self, run: Run) -> Run:
        self.hand.take(run)
        self._last = run
        caution = self.crew.worker.caution
        if caution.on:
            self.hand.message = run.messages[0]
            caution.taken(self.crew.feed_name, run.messages[0])
        return run

    def _in_no_transaction(self, run: Run) -> Run:
        """Of a channel: what is sent for it goes at once, as outside of processing."""
        processing.hold(None)
        self.hand.take(run)
        return run

    async def undecodable(self, error: Exception) -> None:
        log.debug("a record cannot be decoded", exc_info=error)
        policy = await chosen(self.agent.on_error, self.agent, error)
        if policy.verdict is Verdict.FAIL:
            raise error
        await self._put_aside([self._message], policy, error)

    def cut(self, stream: Stream[Any], cut: Cut) -> Topic[Any]:
        return self.crew.cut(stream, cut)

    @property
    def _message(self) -> Message:
        assert self.hand.message is not None
        return self.hand.message

    # What becomes of a record that fails.

    async def _failed(self, error: BaseException) -> None:
        hand, run = self.hand, self.hand.run
        hand.drop()
        self.crew.worker.counters.errors[self.agent.name] += 1
        if hand.message is None or run is None or run.void:
            raise WorkerFailed(
                f"Agent {self.agent.name} has failed with no record in hand:"
                f" {_words(error)}.",
                remedy="It failed before its stream gave it a record; see the traceback.",
            ) from error
        policy = await chosen(self.agent.on_error, self.agent, error)
        if run.is_done:
            # It was said to be done, and what came of that stays; the handler goes on.
            if policy.verdict is Verdict.FAIL:
                raise self._given_up(error, 1)
            log.error(
                "%s failed behind %s: %s", self.agent.name, _place(hand.message), error
            )
            return
        first = run.messages[0] if run.whole else run.messages[run.done]
        attempt = self._attempt(first)
        if attempt < policy.attempts:
            log.warning(
                "%s failed at %s, attempt %d of %d: %s",
                self.agent.name,
                _place(hand.message),
                attempt,
                policy.attempts,
                _words(error),
                exc_info=error if attempt == 1 else None,
            )
            self._again = True
            await asyncio.sleep(policy.wait_before(attempt + 1))
            return
        self.crew.attempts.pop(self._at(first), None)
        if policy.verdict is Verdict.FAIL:
            raise self._given_up(error, attempt)
        await self._put_aside(run.messages if run.whole else [first], policy, error)
        self._done(run)

    def _given_up(self, error: BaseException, attempt: int) -> RecordFailed:
        times = f" {attempt} times in a row" if attempt > 1 else ""
        failed = RecordFailed(
            f"Agent {self.agent.name} has failed{times} at {_place(self._message)}:"
            f" {_words(error)}."
        )
        failed.__cause__ = error
        return failed

    def _attempt(self, message: Message) -> int:
        """How often it has been tried, this time included."""
        at, offset = self._at(message), message.offset()
        before, times = self.crew.attempts.get(at, (offset, 0))
        times = times + 1 if before == offset else 1
        self.crew.attempts[at] = (offset, times)
        return times

    def _at(self, message: Message) -> TopicPartition:
        return TopicPartition(message.topic(), message.partition())

    async def _put_aside(
        self, messages: list[Message], policy: Policy, error: BaseException
    ) -> None:
        worker, agent = self.crew.worker, self.agent
        reason = "undecodable" if isinstance(error, DecodeError) else "failed"
        worker.counters.dropped[agent.name, reason] += len(messages)
        what = "is skipped" if policy.verdict is Verdict.SKIP else "is a dead letter"
        log.error(
            "%s failed at %s, which %s: %s",
            agent.name,
            _place(messages[0]),
            what,
            _words(error),
            exc_info=error,
        )
        if policy.verdict is Verdict.DEAD_LETTER:
            self._once(messages[0], error)
            await worker.have_dead_letter_topic()
            for one in messages:
                message = one.in_bytes() if isinstance(one, Passed) else one
                self.hand.sends.append(worker.dead_letter(message, agent.name, error))

    def _once(self, message: Message, error: BaseException) -> None:
        """A dead letter that is refused itself would come again and again."""
        this = (self._at(message), message.offset())
        if isinstance(error, SendFailed) and self.crew.dead_letter == this:
            raise RecordFailed(
                f"Agent {self.agent.name} has failed at {_place(message)}, and the dead"
                f" letter was refused as well: {_words(error)}.",
                remedy="Let the topic of dead letters take as much as this one"
                " (max.message.bytes), or skip such records: on_error='skip'.",
            ) from error
        self.crew.dead_letter = this


def dead_letter_headers(
    message: Message, agent: str, error: BaseException
) -> list[tuple[str, bytes | None]]:
    """Where a dead letter came from, and why; named as Kafka Streams names it."""
    trace = "".join(traceback.format_exception(error))[-TRACE_CHARACTERS_MAX:]
    named = {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": str(error),
        "stacktrace": trace,
        "topic": message.topic(),
        "partition": str(message.partition()),
        "offset": str(message.offset()),
        "agent": agent,
    }
    ours: list[tuple[str, bytes | None]] = [
        (f"__streams.errors.{name}", text.encode()) for name, text in named.items()
    ]
    return [*(message.headers() or []), *ours]


def _place(message: Message) -> str:
    return f"{message.topic()}:{message.partition()}@{message.offset()}"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
