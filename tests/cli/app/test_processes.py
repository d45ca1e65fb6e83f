"""`worker --processes N`: which end of a worker is the end of all, and which is not."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.clients import wait_until

from streamer.cli.app.processes import Keeper, ProcessFailed, relay

Shop = Any  # of conftest.py


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def slots(said: str) -> list[str]:
    return re.findall(r"^\[(\d)\] .* runs in slot \d", said, re.M)


def test_a_worker_that_is_killed_is_started_again_and_all_stop_together(
    shop: Shop,
) -> None:
    # It has its port again, as far as nobody else takes it.
    two = ("--processes", "2", "--web-port", str(free_port()))
    with shop.worker(*two) as workers:
        workers.wait_for("runs in slot", 2)
        assert sorted(slots(workers.said)) == ["1", "2"]
        held = sorted((shop.home / "state" / shop.name).glob("slot-*/.lock"))
        pids = [int(lock.read_text()) for lock in held]
        assert len(set(pids)) == 2

        os.kill(pids[0], signal.SIGKILL)
        workers.wait_for("was killed (SIGKILL); started again in 0.5 s")
        workers.wait_for("runs in slot", 3)
        workers.wait_for("runs in slot 0", 2)
        shop.send("tea", "--repeat", "2")
        wait_until(lambda: shop.sold("tea") == "2", "it is not counted")

        assert workers.end() == 0
        assert "Traceback" not in workers.said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


SUPERVISED = """
import asyncio, sys
from streamer.cli.app.processes import supervise
asyncio.run(supervise([sys.executable, "-c", sys.argv[1], "worker"], 2, 5.0))
"""


def supervised(program: str) -> subprocess.Popen[str]:
    """Two of a program; `first` is set in one of them."""
    one_is_first = "import os\ntry: os.mkdir('first'); first = True\n"
    one_is_first += "except FileExistsError: first = False\n"
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, one_is_first + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_that_fails_ends_all_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with supervised(
        "import time\n"
        "if first: raise SystemExit('I cannot.')\n"
        "try: time.sleep(60)\n"
        "finally: print('ended')"
    ) as processes:
        _, said = processes.communicate(timeout=10)

    assert processes.returncode == 1
    assert re.search(r"^\[\d\] I cannot\.$", said, re.M)
    assert "ProcessFailed: Process" in said


def test_ctrl_c_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stops_in_order = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: exit(print('in order')))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )

    with supervised(stops_in_order) as processes:
        assert processes.stdout is not None
        for _ in range(2):
            assert "ready" in processes.stdout.readline()
        processes.send_signal(signal.SIGINT)
        printed, said = processes.communicate(timeout=10)

    assert processes.returncode == 0, said
    assert sorted(printed.splitlines()) == ["[1] in order", "[2] in order"]


# One of them, as a program of ours.


def keeper(program: str) -> Keeper:
    return Keeper(7, [sys.executable, "-c", program], pause_s=0.01)


async def test_one_that_ends_in_order_is_left_alone() -> None:
    one = keeper("print('done')")

    await one.keep()

    assert one.starts == 1


async def test_a_failure_is_not_tried_again() -> None:
    one = keeper("raise SystemExit(3)")

    with pytest.raises(ProcessFailed, match="Process 7 has ended with exit code 3"):
        await one.keep()

    assert one.starts == 1


async def test_pauses_grow_while_it_is_killed_again_and_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = keeper("import os; os.kill(os.getpid(), 9)")
    task = asyncio.create_task(one.keep())

    await asyncio.to_thread(wait_until, lambda: one.starts >= 4, "it is not started")
    one.stop()
    # It may have been stopped while it was about to be killed once more.
    await asyncio.gather(task, return_exceptions=True)

    said = capsys.readouterr().err
    assert re.findall(r"again in (\S+) s", said)[:3] == ["0.01", "0.02", "0.04"]


async def test_one_that_is_killed_while_it_stops_has_not_stopped_in_order(
    tmp_path: Path,
) -> None:
    listens = tmp_path / "listens"
    one = keeper(
        "import pathlib, signal, time; signal.signal(15, print);"
        f"pathlib.Path({str(listens)!r}).touch(); time.sleep(60)"
    )
    task = asyncio.create_task(one.keep())
    await asyncio.to_thread(wait_until, listens.exists, "it does not start")

    one.stop()
    one.signal(signal.SIGKILL)

    with pytest.raises(ProcessFailed, match=r"SIGKILL.* while it stopped"):
        await task


async def test_one_that_is_told_to_stop_before_it_listens_has_stopped_as_asked() -> None:
    one = keeper("import time; time.sleep(60)")
    task = asyncio.create_task(one.keep())
    await asyncio.to_thread(wait_until, lambda: one.starts == 1, "it is not started")

    one.stop()

    await task
    assert one.starts == 1


async def test_what_it_has_started_does_not_keep_a_dead_one_alive() -> None:
    # The program that is left behind has the pipes open.
    one = keeper(
        "import os, subprocess; subprocess.Popen(['sleep', '5']);raise SystemExit(4)"
    )
    began = time.monotonic()

    with pytest.raises(ProcessFailed):
        await one.keep()

    assert time.monotonic() - began < 3


async def test_lines_are_passed_on_whole_with_their_number() -> None:
    source, out = asyncio.StreamReader(), io.BytesIO()
    relaying = asyncio.create_task(relay(source, "[1] ", out))

    for part in (b"one\ntw", b"o\n", b"\nthr", b"ee"):
        source.feed_data(part)
        await asyncio.sleep(0)
    source.feed_eof()
    await relaying

    assert out.getvalue() == b"[1] one\n[1] two\n[1] \n[1] three\n"
