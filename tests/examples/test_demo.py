"""The demo as a person starts it, for a few seconds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

DEMO = [sys.executable, str(Path(__file__).parents[2] / "examples" / "demo.py")]


def test_it_prints_a_line_a_second_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = subprocess.run(
        [*DEMO, "--seconds", "3"],
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("seconds")]
    assert len(lines) >= 3
    assert "records/s" in lines[-1]
    assert "p99" in lines[-1]
    committed, aborted = numbers(r"transactions (\S+) committed  (\S+) aborted", lines[-1])
    assert committed > aborted > 0
    assert "group 2 members  Stable  partitions 2 + 2" in lines[-1]
    read, seen = numbers(r"read (\S+) records committed  (\S+) aborted", lines[-1])
    assert read > 0
    assert seen == 0
    assert re.search(r"lag \d", lines[-1])
    assert not list(tmp_path.iterdir())
    assert not brokers_in(tmp_path)


@pytest.mark.slow
def test_a_third_member_comes_and_gets_its_share() -> None:
    result = subprocess.run(
        [*DEMO, "--seconds", "9"], capture_output=True, text=True, timeout=50
    )

    assert result.returncode == 0, result.stderr
    assert "2 members  Stable" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert re.search(r"3 members  Stable  partitions (1|2) \+ (1|2) \+ (1|2)", last)


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        assert brokers_in(tmp_path)

        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=20)

    assert demo.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert not brokers_in(tmp_path)


def numbers(pattern: str, line: str) -> list[int]:
    found = re.search(pattern, line)
    assert found is not None, line
    return [int(group.replace(",", "")) for group in found.groups()]


def brokers_in(folder: Path) -> list[psutil.Process]:
    """The brokers that serve data below `folder`."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]
