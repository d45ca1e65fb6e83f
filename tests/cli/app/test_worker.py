"""`worker`: what it does, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.clients import wait_until

from streamer.cli.app.progress import described, report
from streamer.cli.app.worker import Stop
from streamer.client.interface import TopicPartition
from streamer.state.recovery import Progress

Shop = Any  # of conftest.py
QUIET = ("--web-port", "0")


def test_a_worker_processes_what_is_sent_and_says_where_to_look(shop: Shop) -> None:
    with shop.worker(*QUIET) as worker:
        worker.wait_for("Ctrl-C stops it")
        shop.send("tea", "--repeat", "3")

        wait_until(lambda: shop.sold("tea") == "3", "they are not counted")
        assert f"{shop.name} runs in slot 0, exactly_once; broker 127.0.0.1:" in worker.said
        assert f"its own in {shop.home}" in worker.said
        assert f"{shop.name}-orders" in worker.said
        assert re.search(r"pages at http://127\.0\.0\.1:[1-9]", worker.said)


def test_a_signal_stops_it_in_order(shop: Shop) -> None:
    with shop.worker(*QUIET) as worker:
        shop.send("tea")
        began = time.monotonic()

        assert worker.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in worker.said


def test_a_stop_has_a_bound_and_a_second_signal_is_not_waited_for(shop: Shop) -> None:
    # A handler that takes a minute, and a drain of five seconds.
    with shop.worker(*QUIET) as worker:
        shop.send("slow")
        time.sleep(0.5)

        worker.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(1)

        assert worker.end(signal.SIGINT, within_s=2) == 130
        assert "Ended at once: what was not committed will be done again" in worker.said


def test_handlers_that_do_not_finish_are_left_when_the_time_is_over(shop: Shop) -> None:
    with shop.worker(*QUIET, "--set", "drain.timeout.ms=500") as worker:
        shop.send("slow")
        time.sleep(0.5)
        began = time.monotonic()

        assert worker.end() == 0
        assert time.monotonic() - began < 5


def test_a_worker_that_cannot_go_on_says_why_and_fails(shop: Shop) -> None:
    with shop.worker(*QUIET) as worker:
        shop.send("poison")

        assert worker.code() == 1
        told = worker.said[worker.said.rindex("Error: ") :]
        assert "not to be sold" in told
        assert "-> Mend the handler" in told


def test_an_app_that_stops_itself_ends_its_worker(shop: Shop) -> None:
    with shop.worker(*QUIET) as worker:
        shop.send("last")

        assert worker.code() == 0


def test_a_broker_that_is_not_there_is_named(shop: Shop) -> None:
    result = shop("worker", "-b", "127.0.0.1:1")

    assert result.returncode == 1
    assert "No broker at 127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [("worker",), ("send", "orders", "{}")])
def test_credentials_for_no_broker_are_refused(shop: Shop, words: tuple[str, ...]) -> None:
    result = shop(*words, "--set", "security.protocol=SSL")

    assert result.returncode == 1
    assert "no broker is named" in result.stderr


def test_options_of_the_command_line_are_settings(shop: Shop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with shop.worker("--without-web", "--store", "memory", "-D", str(data)) as worker:
        worker.wait_for("Ctrl-C stops it")

        assert "pages" not in worker.said.lower()
        assert (data / shop.name / "slot-0" / ".lock").exists()


def test_a_worker_ends_with_whoever_supervises_it(shop: Shop) -> None:
    with shop.worker("--supervised", *QUIET) as worker:
        worker.process.stdin.close()
        worker.process.stdin = None

        assert worker.code() == 0


def test_run_as_a_program_it_is_the_same_app(shop: Shop) -> None:
    program = shop.run(shop.file.name, "agents", "-o", "json")

    assert program.stdout == shop.ok("agents", "-o", "json")
    assert f'"agent": "{shop.name}.count"' in program.stdout
    assert f'"topic": "{shop.name}-{shop.name}.double"' in program.stdout


# How a stop is kept within its bound.


async def test_what_takes_longer_than_the_bound_is_ended(
    capfd: pytest.CaptureFixture[str],
) -> None:
    codes: list[int] = []
    stop = Stop(0.05, codes.append)

    stop.begin()
    stop.begin()
    await asyncio.sleep(0.3)

    assert codes == [1]
    assert "Not stopped after 0.05 s, ended" in capfd.readouterr().err


async def test_what_ends_in_time_is_left_alone() -> None:
    codes: list[int] = []
    stop = Stop(0.05, codes.append)

    stop.begin()
    stop.done()
    await asyncio.sleep(0.2)

    assert codes == []


async def test_a_signal_is_heard_while_a_handler_blocks_the_loop() -> None:
    codes: list[int] = []
    stop = Stop(0.05, codes.append)
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        stop.listen(asyncio.get_running_loop())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # noqa: ASYNC251  # the handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert codes == [1]
    await asyncio.wait_for(stop.asked.wait(), 1)


# How far it is.


def test_a_long_recovery_is_told_with_its_rate_and_its_end() -> None:
    progress = Progress(
        done=250_000, total=1_000_000, seconds=5.0, left={TopicPartition("c", 0): 750_000}
    )

    assert described(progress) == (
        "State is being restored: 25 % of 1,000,000 changes, 1 partitions to go, "
        "50,000 a second, 15 s left."
    )


def test_a_recovery_that_waits_says_for_what() -> None:
    told = described(Progress(done=0, total=10, seconds=5.0, trouble="Nobody is there."))

    assert told.endswith("0 a second. It waits: Nobody is there.")


class Runs:
    """An app of which only the recovery is looked at."""

    def __init__(self, progress: Progress | None) -> None:
        self._runtime: Any = self if progress else None
        self.tables = self.recovery = self
        self.progress = progress


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (Progress(done=1, total=2, seconds=3.0), "State is being restored: 50 %"),
        (Progress(done=1, total=2, seconds=0.0), None),
        (None, "Waiting for the broker, since 0.01 s."),
    ],
    ids=["restoring", "not for long", "starting"],
)
async def test_only_what_takes_long_is_told(progress: Progress | None, told: str) -> None:
    lines: list[str] = []
    app: Any = Runs(progress)
    task = asyncio.create_task(report(app, lines.append, each_s=0.01))

    await asyncio.sleep(0.05)
    task.cancel()

    assert (lines[0].startswith(told)) if told else lines == []
