"""The defects of a worker that must not go unnoticed, planted one at a time.

    PYTHONPATH=tests python -m crash.planted [FOLDER] [word of a defect's name ...]

As `tests/reliability/planted.py`, whose machinery it uses, does for the broker.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from reliability.planted import Defect, main

TRIAL = "tests/crash/test_crash.py"
KILLS = f"{TRIAL}::test_each_entry_counts_once_whoever_is_killed"
COMMITS = f"{TRIAL}::test_each_entry_counts_once_whatever_becomes_of_commits"
RESTART = "tests/worker/test_restart.py"
MEMBERSHIP = "tests/worker/test_membership.py"
POSITIONS = "tests/worker/test_positions.py"
ERRORS = "tests/worker/test_errors.py"
MEMBER = "tests/client/test_member.py"

TRANSACTION = "streamer/worker/transaction.py"

DEFECTS = (
    Defect(
        "offsets are committed outside of the transaction",
        TRANSACTION,
        "            self._stubbornly("
        "partial(producer.send_offsets, batch.positions, membership))\n",
        "            self._worker.member.commit(batch.positions)\n",
        (COMMITS,),
    ),
    Defect(
        "the ranges that are done beyond are forgotten",
        "streamer/worker/positions.py",
        "        if one.offset != offset or one.ahead\n",
        "        if one.offset != offset\n",
        (POSITIONS,),
    ),
    Defect(
        "the store is written before the commit",
        TRANSACTION,
        "            if spoiled and self._conf.guarantee != AT_MOST_ONCE:\n",
        "            self._write_stores(batch)\n"
        "            if spoiled and self._conf.guarantee != AT_MOST_ONCE:\n",
        ("tests/worker/test_transaction.py", COMMITS),
    ),
    Defect(
        "one changelog record in 10,000 is dropped",
        TRANSACTION,
        "                        if last:\n",
        "                        if last and __import__('zlib').crc32(key) % 10_000 == 7:\n"
        "                            pass\n"
        "                        elif last:\n",
        (RESTART,),
    ),
    Defect(
        "what a failed attempt has staged is kept",
        "streamer/worker/actor.py",
        "        hand, run = self.hand, self.hand.run\n        hand.drop()\n",
        "        hand, run = self.hand, self.hand.run\n",
        (ERRORS, "tests/worker/test_atomic.py"),
    ),
    Defect(
        "what is staged is lost when the producer's queue is full",
        TRANSACTION,
        "            del sends[: self._produce(sends)]\n",
        "            self._produce(sends)\n            sends.clear()\n",
        ("tests/worker/test_transaction.py",),
    ),
    Defect(
        "the state of another slot is used",
        "streamer/worker/worker.py",
        "LocalTables(app.tables, self.conf, self.clients, slot.path)",
        "LocalTables(app.tables, self.conf, self.clients, slot.path.with_name('slot-0'))",
        (MEMBERSHIP, KILLS),
    ),
    Defect(
        "positions are counted",
        "streamer/worker/feed.py",
        "        first, behind = messages[0].offset(), messages[-1].offset() + 1\n",
        "        first = messages[0].offset()\n        behind = first + len(messages)\n",
        ("tests/worker/test_feed.py", POSITIONS, KILLS),
    ),
    Defect(
        "after an abort nothing is read again",
        "streamer/worker/worker.py",
        "        await self.assignment.reread()\n",
        "        self.transaction.forget()\n",
        (COMMITS,),
    ),
    Defect(
        "after an abort what agents have done is not forgotten",
        "streamer/worker/assignment.py",
        "        worker.transaction.forget()\n        async with worker.pump.owned:\n",
        "        async with worker.pump.owned:\n",
        (COMMITS,),
    ),
    Defect(
        "lanes are not cleared",
        "streamer/worker/feed.py",
        "        self.lanes = {}\n        self._ready.clear()\n\n    def retire",
        "\n    def retire",
        (COMMITS,),
    ),
    Defect(
        "a commit does not wait for its records",
        TRANSACTION,
        "            while len(producer) and time.monotonic() < until:\n"
        "                await asyncio.sleep(LOOK_S)\n"
        "                producer.poll(0)\n"
        "        if not self.queued and not any(",
        "        if not any(",
        (RESTART, f"{TRIAL}::test_at_least_once_loses_nothing"),
    ),
    Defect(
        "what is in hand is committed with the rest",
        "streamer/worker/feed.py",
        "            run = self._under_way[0]\n"
        "            offset = run.messages[run.done].offset()\n",
        "            run = self._under_way[0]\n"
        "            offset = run.messages[-1].offset() + 1\n",
        ("tests/worker/test_feed.py", KILLS),
    ),
    Defect(
        "a partition that comes back stays paused",
        "streamer/client/confluent/member.py",
        "        self._consumer.resume(wanted)\n",
        "",
        (MEMBER, MEMBERSHIP),
    ),
    Defect(
        "positions are committed as who we are by then",
        "streamer/client/confluent/member.py",
        "        self._changes.append(Given(tuple(map(plain, partitions)), membership))\n",
        "        self._changes.append(Given(tuple(map(plain, partitions)), None))\n",
        (MEMBER,),
    ),
)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:], DEFECTS))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary), [], DEFECTS))
