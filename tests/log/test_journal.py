"""Facts that were synced are there again, or the start stops and says where."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest
from support.disk import SimulatedDisk

from streamer.log.errors import JournalDamaged
from streamer.log.journal import Fact, Journal

PATH = Path("/data/catalog.journal")
FACTS: list[Fact] = [
    {"topic": "orders", "id": "7", "partitions": 4, "configs": {"retention.ms": "60000"}},
    {"starts": 3},
    {"topic": "größe@ \x01", "id": "8"},
]


def written(disk: SimulatedDisk) -> bytes:
    disk.make_dir(PATH.parent)
    journal = Journal.open(disk, PATH)
    for fact in FACTS:
        journal.append(fact)
    journal.sync()
    return disk.files()[PATH]


def test_facts_are_read_back_in_order() -> None:
    disk = SimulatedDisk()
    written(disk)
    assert Journal.open(disk, PATH).entries() == FACTS


def test_a_rewritten_journal_holds_the_new_facts_and_goes_on() -> None:
    disk = SimulatedDisk()
    written(disk)
    journal = Journal.open(disk, PATH)
    journal.rewrite(FACTS[:1])
    journal.append({"starts": 4})
    journal.sync()
    assert journal.entries() == FACTS[:1]
    assert Journal.open(disk, PATH).entries() == [*FACTS[:1], {"starts": 4}]


def test_cut_at_any_byte_it_holds_the_facts_before_the_cut() -> None:
    disk = SimulatedDisk()
    data = written(disk)
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    for size in range(ends[0], len(data) + 1):
        disk.replace(PATH, data[:size])
        journal = Journal.open(disk, PATH)
        assert journal.entries() == FACTS[: sum(end <= size for end in ends[1:])]
        journal.append({"next": 1})
        assert Journal.open(disk, PATH).entries()[-1] == {"next": 1}


def test_no_flipped_bit_goes_unnoticed() -> None:
    disk = SimulatedDisk()
    data = written(disk)
    for bit in range(len(data) * 8):
        disk.replace(PATH, data)
        disk.flip(PATH, bit)
        with pytest.raises(JournalDamaged, match=r"catalog\.journal"):
            Journal.open(disk, PATH)


@pytest.mark.parametrize("seed", range(300))
def test_after_a_power_cut_all_synced_facts_are_there_and_nothing_else(seed: int) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    disk.make_dir(PATH.parent)
    journal = Journal.open(disk, PATH)
    facts: list[Fact] = []
    synced = 0
    for number in range(random.randrange(1, 8)):
        facts.append({"number": number, "padding": "x" * random.randrange(700)})
        journal.append(facts[-1])
        if random.random() < 0.8 or number == 0:
            journal.sync()
            synced = len(facts)
        else:
            break
    disk.crash(random)
    found = Journal.open(disk, PATH).entries()
    assert found == facts[: len(found)]
    assert len(found) >= synced


def test_a_fact_that_found_no_room_was_never_there() -> None:
    disk = SimulatedDisk()
    written(disk)
    journal = Journal.open(disk, PATH)
    disk.capacity = disk.capacity - disk.space(PATH).free + 10
    with pytest.raises(OSError, match="No space"):
        journal.append({"big": "x" * 100})
    disk.capacity = 1 << 30
    journal.append({"starts": 4})
    journal.sync()
    assert Journal.open(disk, PATH).entries() == [*FACTS, {"starts": 4}]


def test_a_failed_sync_is_never_tried_again() -> None:
    disk = SimulatedDisk()
    written(disk)
    journal = Journal.open(disk, PATH)
    journal.append({"starts": 4})
    disk.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="on purpose"):
        journal.sync()
    disk.heal()
    with pytest.raises(OSError, match="on purpose"):
        journal.sync()
    with pytest.raises(OSError, match="on purpose"):
        journal.append({"starts": 5})


def test_a_file_of_another_version_is_refused() -> None:
    disk = SimulatedDisk()
    disk.replace(PATH, b"streamer-journal 2\n")
    with pytest.raises(JournalDamaged, match="version 1"):
        Journal.open(disk, PATH)
