"""A power cut at every write: what was answered "committed" is whole, nothing else is seen.

A history is played once on a disk in memory, which keeps what it would hold after a power
cut at each of its steps, and what clients had been told by then. Each of these disks is
then opened by a new broker, as after the cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.raw_transactions import Place, Teller, committed

from streamer.broker.core import Broker
from streamer.log.partition import Partition
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import OffsetFetchRequest

DATA = Path("/data")
PLACES = [("a", 0), ("a", 1), ("b", 0)]
NAMES = ("one", "two")
# How many turns of the loop a sync may take; a request takes a few dozen.
TURNS = (1, 1, 10, 100)
OK = ErrorCode.NONE
SETTINGS = {"transaction.state.log.segment.bytes": "1048576"}


class Now:
    """A clock that stands still, shortly after the batches of the tests were written."""

    def now_ms(self) -> int:
        return 1_700_000_000_100

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Told:
    """What clients were told, and what they have asked for, up to a moment."""

    wrote: dict[str, Counter[Place]] = field(default_factory=dict)
    """Each transaction by its name; how often it has written where."""
    offsets: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    """A commit was asked for: it may be seen."""
    committed: set[str] = field(default_factory=set)
    """The commit was answered: it must be."""


class Cut:
    """The disk as it was at some moment, and what had been told."""

    def __init__(self, disk: SimulatedDisk, told: Told) -> None:
        self.disk, self.told = disk, told


def copy_of(disk: SimulatedDisk) -> SimulatedDisk:
    copy = SimulatedDisk()
    copy._files, copy._dirs, copy._renames = deepcopy(
        (disk._files, disk._dirs, disk._renames)
    )
    return copy


class RecordingDisk(SimulatedDisk):
    """Keeps itself as it is before each step that changes it."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self.told = told
        self.cuts: list[Cut] = []
        self.recording = False

    def step(self, call: str, path: Path) -> None:
        super().step(call, path)
        if self.recording and call not in ("read", "open"):
            self.cuts.append(Cut(copy_of(self), deepcopy(self.told)))


def on_the_loop(broker: Broker, random: Random) -> None:
    """Let the broker wait for its disk where it stands: a seed repeats a history.

    Some syncs take so long that others, asked for later, are done before them.
    """

    def sync(partition: Partition) -> None:
        while (job := partition.begin_flush()) is not None:
            job.run()
            partition.flushed(job)
        broker.watchers.moved(partition)

    def flush(partition: Partition) -> None:
        sync_in(random.choice(TURNS), partition)

    def sync_in(turns: int, partition: Partition) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(sync_in, turns - 1, partition)
        else:
            sync(partition)

    async def run(job: Callable[[], None]) -> None:
        job()

    broker.flusher.flush = flush  # type: ignore[method-assign]
    broker.catalog._in_thread = run


@asynccontextmanager
async def started(disk: SimulatedDisk, random: Random) -> AsyncIterator[Broker]:
    async with running_broker(DATA, SETTINGS, disk=disk, clock=Now()) as broker:
        on_the_loop(broker, random)
        yield broker


async def play(random: Random, disk: RecordingDisk, broker: Broker) -> None:
    """Producers that begin, write, and end; at any moment they may be replaced."""
    client, told = Client(broker), disk.told
    tellers = [Teller(client, name) for name in NAMES]
    going: dict[str, str] = {}
    for teller in tellers:
        assert await teller.init() == OK
    # Most cuts are not to fall where topics are made.
    disk.recording = disk.recording or random.random() < 0.9
    for number in range(random.randrange(2, 10)):
        teller = random.choice(tellers)
        name = going.get(teller.name)
        if name is None:
            name = going[teller.name] = f"{teller.name}-{number}"
            told.wrote[name] = Counter()
        match random.choice("wwwwoceai"):
            case "w":
                place = random.choice(PLACES)
                assert await teller.add(place) == [OK]
                acks = random.choice((-1, 1))
                assert await teller.send(place, name.encode(), acks=acks) == OK
                told.wrote[name][place] += 1
            case "o":
                assert await teller.add_offsets(teller.name) == OK
                assert await teller.commit_offset(("a", 0), number, teller.name) == OK
                told.offsets[name] = number
            case "c" | "e" if told.wrote[name] or name in told.offsets:
                told.asked.add(name)
                assert await teller.commit() == OK
                told.committed.add(name)
                del going[teller.name]
            case "a" if told.wrote[name] or name in told.offsets:
                assert await teller.abort() == OK
                del going[teller.name]
            case "i":
                assert await teller.init() == OK
                del going[teller.name]


async def offset_of(client: Client, group: str) -> int:
    request = OffsetFetchRequest(
        group_id=group,
        require_stable=True,
        topics=[OffsetFetchRequest.Topic(name="a", partition_indexes=[0])],
    )
    [topic] = (await client.ask(ApiKey.OFFSET_FETCH, 7, request)).topics
    [partition] = topic.partitions
    assert partition.error_code in (OK, ErrorCode.UNSTABLE_OFFSET_COMMIT)
    return int(partition.committed_offset)


Seen = dict[Place | str, Any]


async def seen(broker: Broker) -> Seen:
    """All that readers of committed records, and of offsets, get to see."""
    client = Client(broker)
    found: Seen = {place: await committed(client, place) for place in PLACES}
    return found | {name: await offset_of(client, name) for name in NAMES}


def check(told: Told, before: Seen, found: Seen) -> None:
    """All of a transaction or nothing; all, if its producer was told so. What somebody has
    seen before stays as it was."""
    for place in PLACES:
        assert found[place][: len(before[place])] == before[place], "it was seen before"
    offsets: dict[str, int] = dict.fromkeys(NAMES, -1)
    for name, wrote in told.wrote.items():
        holder = name.partition("-")[0]
        sees = [found[place].count(name.encode()) for place in PLACES]
        offset = told.offsets.get(name)
        may_be_whole = name in told.asked and (
            any(sees) or (offset is not None and found[holder] == offset)
        )
        if name in told.committed or may_be_whole:
            assert sees == [wrote[place] for place in PLACES], f"{name} is torn"
            offsets[holder] = offsets[holder] if offset is None else offset
        else:
            assert not any(sees), f"{name} was never committed"
    assert {name: found[name] for name in NAMES} == offsets


async def nothing_hangs(broker: Broker) -> None:
    """Once every id has a new holder, readers come to the end of every partition."""
    for name in NAMES:
        assert await Teller(Client(broker), name).init() == OK
    for place in PLACES:
        partition = broker.catalog.partition(*place)
        assert partition is not None
        assert partition.last_stable == partition.end


async def after_the_cut(cut: Cut, random: Random) -> None:
    cut.disk.crash(random)
    async with started(cut.disk, random) as broker:
        before = await seen(broker)
        await nothing_hangs(broker)
        check(cut.told, before, await seen(broker))


async def after_two_cuts(cut: Cut, random: Random) -> None:
    """The second one comes as soon as the broker is up again."""
    cut.disk.crash(random)
    async with started(cut.disk, random) as broker:
        before = await seen(broker)
        disk = copy_of(cut.disk)
    disk.crash(random)
    async with started(disk, random) as broker:
        await nothing_hangs(broker)
        check(cut.told, before, await seen(broker))


async def history(seed: int) -> None:
    random = Random(seed)
    disk = RecordingDisk(Told())
    async with started(disk, random) as broker:
        await broker.catalog.create("a", 2, {})
        await broker.catalog.create("b", 1, {})
        disk.recording = random.random() < 0.1
        await play(random, disk, broker)
        disk.recording = False
    for cut in disk.cuts:
        await random.choice([after_the_cut] * 4 + [after_two_cuts])(cut, random)


# A hundred histories have some 2,500 cuts.
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed < 20 else pytest.mark.slow)
        for seed in range(200)
    ],
)
async def test_a_transaction_is_whole_or_unseen_after_a_power_cut(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # what was cut off is told each time

    await history(seed)
