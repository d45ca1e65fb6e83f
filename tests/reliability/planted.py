"""Tests of the tests: the defects that must not go unnoticed, planted one at a time.

    python tests/reliability/planted.py [FOLDER] [word of a defect's name ...]

A copy of the source is made in FOLDER (a temporary one by default); in it each defect is
planted in turn and the tests that should notice are run. What comes out is the table of
docs/reliability.md. A defect whose line is no longer in the source is an error: move it
along with the source. Nothing happens to the source itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[2]
COPIED = ("streamer", "tests", "benchmarks", "examples", "docs", "pyproject.toml")

POWER_CUT = "tests/broker/transactions/test_power_cut.py"
REQUESTS = "tests/broker/transactions/test_requests.py"
TRANSACTION = "tests/broker/transactions/test_transaction.py"
FIRE = "tests/reliability/test_transactions_under_fire.py"
BROKER_KILLS = f"{FIRE}::test_a_few_kills_of_the_broker_leave_no_anomaly"
MORE_BROKER_KILLS = f"{FIRE}::test_kills_of_the_broker_leave_no_anomaly"
CLIENT_KILLS = f"{FIRE}::test_kills_and_sleeps_of_clients_leave_no_anomaly"


class Defect(NamedTuple):
    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


DEFECTS = (
    Defect(
        "the flush before the outcome is skipped",
        "streamer/broker/transactions/coordinator.py",
        "            await self._flush(transaction)\n",
        "            pass\n",
        (POWER_CUT, REQUESTS),
    ),
    Defect(
        "markers are not flushed before the end is noted",
        "streamer/broker/transactions/markers.py",
        "            await self._broker.flushed(partition, offset)\n",
        "            pass\n",
        (POWER_CUT, REQUESTS),
    ),
    Defect(
        "the partition forgets the epoch check",
        "streamer/log/producers.py",
        "    elif header.producer_epoch < state.epoch:\n",
        "    elif False:\n",
        ("tests/log/test_producers.py", "tests/conformance/test_wire_idempotence.py"),
    ),
    Defect(
        "the coordinator forgets the epoch check when it verifies",
        "streamer/broker/transactions/transaction.py",
        "    if transaction.epoch != producer.epoch:\n"
        "        return ErrorCode.INVALID_PRODUCER_EPOCH\n",
        "",
        (TRANSACTION, REQUESTS, "tests/conformance/test_wire_transactions.py"),
    ),
    Defect(
        "the coordinator forgets the epoch check at the end",
        "streamer/broker/transactions/transaction.py",
        "    if transaction.epoch != producer.epoch:\n"
        "        return ErrorCode.PRODUCER_FENCED\n"
        "    if transaction.phase != Phase.ONGOING:\n",
        "    if transaction.phase != Phase.ONGOING:\n",
        (TRANSACTION, REQUESTS, "tests/conformance/test_transactions.py"),
    ),
    Defect(
        "the last stable offset is one too high",
        "streamer/log/partition.py",
        "            stable = first_open\n",
        "            stable = first_open + 1\n",
        (REQUESTS, "tests/conformance/test_transactions.py", BROKER_KILLS),
    ),
    Defect(
        "one partition gets no marker",
        "streamer/broker/transactions/markers.py",
        "        for place in places:\n            partition = ",
        "        for place in sorted(places)[: max(1, len(list(places)) - 1)]:\n"
        "            partition = ",
        (REQUESTS, "tests/conformance/test_transactions.py", BROKER_KILLS),
    ),
    Defect(
        "the generation is lost at a restart",
        "streamer/broker/groups/coordinator.py",
        "            generation=value.generation,\n            protocol_type",
        "            generation=0,\n            protocol_type",
        ("tests/broker/groups/test_coordinator.py", BROKER_KILLS),
    ),
    Defect(
        "a transaction commits offsets for whoever is no member any more",
        "streamer/broker/groups/commits.py",
        '    if code:\n        raise Refused(code, "The group does not let',
        "    if code and not transactional:\n"
        '        raise Refused(code, "The group does not let',
        ("tests/broker/groups", "tests/conformance/test_transactions.py", CLIENT_KILLS),
    ),
    Defect(
        "a window of four batches",
        "streamer/log/producers.py",
        "WINDOW = 5\n",
        "WINDOW = 4\n",
        ("tests/log/test_producers.py", "tests/conformance/test_wire_idempotence.py"),
    ),
    Defect(
        "an answer before the flush",
        "streamer/broker/produce.py",
        "    if request.acks == ALL and written:\n",
        "    if False:\n",
        ("tests/broker/test_produce.py", "tests/broker/test_fsync_failure.py"),
    ),
    Defect(
        "compaction drops the newest record of a key",
        "streamer/log/compaction_rules.py",
        "latest.get(key, -1) <= base_offset + delta",
        "latest.get(key, -1) < base_offset + delta",
        ("tests/log/test_compaction_is_a_dict.py", "tests/log/test_compaction.py"),
    ),
    Defect(
        "offsets of an aborted transaction count",
        "streamer/broker/transactions/markers.py",
        "finish(producer.id, place.partition, commit=commit)",
        "finish(producer.id, place.partition, commit=True)",
        (REQUESTS, "tests/conformance/test_transactions.py", BROKER_KILLS),
    ),
    Defect(
        "a batch that is repeated is appended again",
        "streamer/log/producers.py",
        "                return sent\n",
        "                return None\n",
        ("tests/log/test_producers.py", MORE_BROKER_KILLS),
    ),
)


class Run(NamedTuple):
    tests: str
    seconds: float
    failed: str  # the first test that failed; empty if none did


def copy_to(folder: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        found = SOURCE / name
        if found.is_dir():
            shutil.copytree(found, folder / name, ignore=unwanted, dirs_exist_ok=True)
        else:
            shutil.copy(found, folder / name)


def plant(folder: Path, defect: Defect) -> None:
    path = folder / defect.file
    text = (SOURCE / defect.file).read_text()
    if text.count(defect.right) != 1:
        raise SystemExit(
            f"{defect.name}: its line is {text.count(defect.right)} times in it"
        )
    path.write_text(text.replace(defect.right, defect.wrong))


def run(folder: Path, tests: str) -> Run:
    """Stop at the first failure."""
    started = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-m", "not kafka"),
            *("-p", "no:cacheprovider", tests),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^(?:FAILED|ERROR) \S*?::(\w+)", done.stdout, re.MULTILINE)
    failed = found.group(1) if found else ""
    if done.returncode and not failed:
        failed = f"pytest ended with {done.returncode}: {done.stdout[-300:]}"
    return Run(tests, time.monotonic() - started, failed)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(folder: Path, words: list[str], defects: Sequence[Defect] = DEFECTS) -> int:
    copy_to(folder)
    unnoticed = 0
    say("| Defect | Caught by | After |\n|---|---|--:|")
    for defect in defects:
        if words and not any(word in defect.name for word in words):
            continue
        plant(folder, defect)
        runs = [run(folder, tests) for tests in defect.tests]
        shutil.copy(SOURCE / defect.file, folder / defect.file)
        unnoticed += not any(each.failed for each in runs)
        for each in runs:
            caught = f"`{each.failed}`" if each.failed else f"not by `{each.tests}`"
            say(f"| {defect.name} | {caught} | {each.seconds:.1f} s |")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary), []))
