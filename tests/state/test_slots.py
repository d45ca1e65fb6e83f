"""Slots: one for each worker, given back by the system when the worker is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.state.errors import NoSlot
from streamer.state.slots import Slot

WORKER = """
import sys
from pathlib import Path
from streamer.state.slots import Slot

slot = Slot.take(Path(sys.argv[1]))
print(slot.number, flush=True)
sys.stdin.read()
"""


class Worker:
    """A process that holds a slot until it is killed."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self.number = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


def test_the_first_free_slot_is_taken(tmp_path: Path) -> None:
    with Slot.take(tmp_path / "app") as zero, Slot.take(tmp_path / "app") as one:
        assert (zero.number, one.number) == (0, 1)
        assert zero.path == tmp_path / "app" / "slot-0"
        assert zero.path.is_dir()


def test_a_slot_that_was_released_is_taken_again_with_what_is_in_it(tmp_path: Path) -> None:
    first = Slot.take(tmp_path)
    (first.path / "state").touch()
    first.release()
    first.release()

    with Slot.take(tmp_path) as again:
        assert again.number == 0
        assert (again.path / "state").exists()


def test_the_slot_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    one, two = Worker(tmp_path), Worker(tmp_path)
    with Slot.take(tmp_path) as ours:
        numbers = [one.number, two.number, ours.number]
    one.kill()

    with Slot.take(tmp_path) as first, Slot.take(tmp_path) as second:
        freed = [first.number, second.number]
    two.kill()

    assert numbers == [0, 1, 2]
    assert freed == [0, 2]


def test_programs_started_from_a_worker_do_not_hold_its_slot(tmp_path: Path) -> None:
    slot = Slot.take(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    slot.release()

    with Slot.take(tmp_path) as again:
        assert again.number == 0
    child.communicate()


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NoSlot, match="Cannot keep state in"):
        Slot.take(tmp_path / "file" / "app")
