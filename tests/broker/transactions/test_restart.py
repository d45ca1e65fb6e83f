"""A broker that is killed and started again: who was in a transaction goes on with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.batches import TRANSACTIONAL, batch
from support.core import Client, running_broker, started_broker
from support.disk import SimulatedDisk
from support.logs import coordinated
from support.raw_transactions import Place, Teller, committed

from streamer.broker.core import Broker
from streamer.broker.transactions.transaction import Phase
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode

OK = ErrorCode.NONE
A, B = ("a", 0), ("a", 1)
DATA = Path("/data")


class Machine:
    """A broker that can be killed; what it had written is there when it comes back."""

    broker: Broker

    def __init__(self) -> None:
        self.disk = SimulatedDisk()

    async def start(self) -> Broker:
        self.broker = await started_broker(DATA, disk=self.disk)
        return self.broker

    async def restart(self) -> Broker:
        self.end_threads()
        self.disk.kill()
        return await self.start()

    def end_threads(self) -> None:
        self.broker.transactions.close()
        self.broker.flusher.close()
        self.broker._readers.shutdown()
        self.broker._writer.shutdown()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    machine = Machine()
    broker = await machine.start()
    await broker.catalog.create("a", 2, {})
    yield machine
    machine.end_threads()


def partition_of(broker: Broker, place: Place = A) -> Partition:
    found = broker.catalog.partition(*place)
    assert found is not None
    return found


STEPS = 7


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("killed_before", range(STEPS + 1))
async def test_a_producer_goes_on_where_it_was(
    machine: Machine, killed_before: int, commit: bool
) -> None:
    teller = Teller(Client(machine.broker))
    first: dict[Place, bytes] = {}

    for step in range(STEPS):
        if step == killed_before:
            teller.client = Client(await machine.restart())
        match step:
            case 0:
                assert await teller.init() == OK
            case 1:
                assert await teller.add(A) == [OK]
            case 2:
                first = {A: teller.batch(A, [b"1"])}
                assert await teller.send_batches(first) == {A: OK}
            case 3:
                # It did not hear the answer, and says it again.
                assert await teller.send_batches(first) == {A: OK}
            case 4:
                assert await teller.add(A, B) == [OK, OK]
            case 5:
                assert await teller.send(B, b"2") == OK
            case 6:
                assert await teller.end(commit=commit) == OK
    if killed_before == STEPS:
        teller.client = Client(await machine.restart())
    assert await teller.end(commit=commit) == OK

    assert teller.epoch == 0
    assert await committed(teller.client, A) == ([b"1"] if commit else [])
    assert await committed(teller.client, B) == ([b"2"] if commit else [])


async def test_the_holder_of_a_second_producer_id_may_still_ask_with_the_first(
    machine: Machine,
) -> None:
    teller = Teller(Client(machine.broker))
    await teller.init()
    first_id = teller.id
    entry = machine.broker.transactions._entries["till"]
    assert entry.transaction is not None
    object.__setattr__(entry.transaction, "epoch", 32766)
    teller.epoch = 32766
    assert await teller.init(again=True) == OK
    assert (teller.id != first_id, teller.epoch) == (True, 0)

    broker = await machine.restart()

    found = broker.transactions.get("till")
    assert found is not None
    assert (found.producer_id, found.previous_producer_id) == (teller.id, first_id)


async def test_time_goes_on_while_the_broker_is_down(machine: Machine) -> None:
    teller = Teller(Client(machine.broker), timeout_ms=1)
    await teller.init()
    await teller.add(A)
    await teller.send(A, b"1")

    broker = await machine.restart()
    assert partition_of(broker).last_stable == 0
    await broker.transactions.abort_late()

    assert await Teller(Client(broker)).init() == OK
    assert partition_of(broker).last_stable == partition_of(broker).end


# What hangs


async def open_by_hand(broker: Broker, producer_id: int, epoch: int) -> None:
    partition = partition_of(broker)
    records = batch(
        [b"hanging"],
        attributes=TRANSACTIONAL,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=0,
    )
    appended = partition.append(records, now_ms=broker.clock.now_ms(), verify=coordinated)
    broker.written(partition)
    await broker.flushed(partition, appended.last_offset)


@pytest.mark.parametrize(
    ("producer_id", "epoch", "end", "committed_is", "epoch_is"),
    [
        # Nobody has this producer: it is fenced.
        (99, 4, None, False, 5),
        (99, 32767, None, False, 32767),
        # The id has gone on to another epoch.
        (0, 3, None, False, 4),
        # The id knows nothing of this partition, but it is its producer.
        (0, 0, None, False, 0),
        # The outcome is known, the marker was lost.
        (0, 0, False, False, 0),
        (0, 0, True, True, 0),
    ],
)
async def test_what_nobody_would_end_is_ended_at_the_start(
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    producer_id: int,
    epoch: int,
    end: bool | None,
    committed_is: bool,
    epoch_is: int,
) -> None:
    teller = Teller(Client(machine.broker))
    await teller.init()
    if end is not None:
        await teller.add(B)
        await teller.end(commit=end)
    await open_by_hand(machine.broker, producer_id, epoch)

    with caplog.at_level(logging.WARNING):
        broker = await machine.restart()

    assert f"producer {producer_id} in a-0 was left open" in caplog.text
    partition = partition_of(broker)
    assert partition.last_stable == partition.end == 2
    values = [b"hanging"] if committed_is else []
    assert await committed(Client(broker), A) == values
    state = partition.producer_state(producer_id)
    assert state is not None
    assert state.epoch == epoch_is


async def test_what_goes_on_does_not_hang(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    teller = Teller(Client(machine.broker))
    await teller.init()
    await teller.add(A)
    await teller.send(A, b"1")

    broker = await machine.restart()

    assert "left open" not in caplog.text
    assert partition_of(broker).last_stable == 0


async def test_without_its_log_the_coordinator_decides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_broker(tmp_path) as broker:
        await broker.catalog.create("a", 2, {})
        teller = Teller(Client(broker))
        await teller.init()
        await teller.add(A)
        await teller.send(A, b"1")
        folder = (await broker.transactions.log.partition(0)).path
        segment = folder / "00000000000000000000.log"
    damaged = bytearray(segment.read_bytes())
    damaged[-1] ^= 1
    segment.write_bytes(damaged)

    async with running_broker(tmp_path) as broker:
        assert "Nobody can use transactions" in caplog.text
        teller.client = Client(broker)
        unavailable = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await teller.init() == unavailable
        assert await teller.add(A) == [unavailable]
        assert await teller.add_offsets() == unavailable
        assert await teller.commit() == unavailable
        assert await teller.commit_offset(A, 1) == unavailable
        # What goes on there can go on; nothing new is begun, and nothing is repaired.
        assert await teller.send(A, b"2") == OK
        assert await teller.send(B, b"2") == ErrorCode.NOT_ENOUGH_REPLICAS
        assert partition_of(broker).last_stable == 0


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("turns", range(6))
async def test_nothing_is_written_once_the_broker_has_stopped(
    machine: Machine, turns: int, commit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = machine.broker
    teller = Teller(Client(broker))
    assert await teller.init() == OK
    assert await teller.add(A) == [OK]
    assert await teller.send(A, b"a", acks=1) == OK
    ending = asyncio.ensure_future(teller.end(commit=commit))
    for _ in range(turns):
        await asyncio.sleep(0)
    log = partition_of(broker, (broker.transactions.log.topic, 0))

    broker.close()
    written = log.end
    async with asyncio.timeout(5):
        code = await ending
    await asyncio.sleep(0)

    assert log.end == written
    assert "cannot be written to" not in caplog.text
    complete = Phase.COMPLETE_COMMIT if commit else Phase.COMPLETE_ABORT
    assert code != OK or await teller_after(machine) == complete


async def teller_after(machine: Machine) -> Phase:
    """How the transaction stands at the next start."""
    transaction = (await machine.start()).transactions.get("till")
    assert transaction is not None
    return transaction.phase
