"""`streamer broker` as a process: how it ends, and what it says of it."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.broker import start_streamer

from streamer.client.file_lock import is_held
from streamer.log.checkpoints import CLEAN_SHUTDOWN

STREAMER = Path(sys.executable).with_name("streamer")


def run(directory: Path, users: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A broker that ends, with all that it said."""
    command = [STREAMER, "broker", "--data-dir", directory, "--while-used", users, *options]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_broker_that_nobody_uses_ends_by_itself(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run(tmp_path / "data", tmp_path / "users")

    assert ended.returncode == 0
    assert f"it ends with the last user of {tmp_path / 'users'}" in ended.stderr
    assert "Nobody uses this broker any more" in ended.stderr
    assert (tmp_path / "data" / CLEAN_SHUTDOWN).exists()
    assert time.monotonic() - began < 10


def test_it_stays_while_somebody_holds_the_file_and_keeps_it_to_the_end(
    tmp_path: Path,
) -> None:
    users = tmp_path / "users"
    with users.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        server = start_streamer(tmp_path, options=("--while-used", str(users)))
        time.sleep(1.5)  # it looks every second
        assert server.process.poll() is None

    with server:
        while "Nobody uses" not in server.output.read_text():
            time.sleep(0.001)
        # It lets go of the users' file after the log's, never before.
        while server.process.poll() is None:
            released = not is_held(users)
            assert not (released and is_held(server.logs / ".lock"))
        assert server.process.returncode == 0


def test_a_port_that_was_named_is_taken_for_apps_too(tmp_path: Path) -> None:
    users = tmp_path / "users"
    with users.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with start_streamer(tmp_path / "other") as other:
            port = other.address.rpartition(":")[2]
            failed = run(tmp_path / "data", users, "--port", port)

    assert failed.returncode == 1
    assert f"Cannot listen at 127.0.0.1:{port}" in failed.stderr


def test_ctrl_c_ends_it_while_it_is_used(tmp_path: Path) -> None:
    users = tmp_path / "users"
    with users.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        server = start_streamer(tmp_path, options=("--while-used", str(users)))

        server.process.send_signal(signal.SIGINT)

        assert server.process.wait(10) == 0
        assert not is_held(users)


def test_a_file_that_cannot_be_opened_is_named_with_the_way_out(tmp_path: Path) -> None:
    failed = run(tmp_path / "data", tmp_path / "no" / "users")

    assert failed.returncode == 1
    assert f"{tmp_path / 'no' / 'users'} cannot be opened" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "streamer", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert output.startswith("Usage: streamer ")
