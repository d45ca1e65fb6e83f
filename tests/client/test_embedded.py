"""The app's own broker, on real processes: found, shared, ended, killed, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.broker import start_streamer
from support.clients import wait_until

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.embedded import EmbeddedBroker, EmbeddedBrokerFailed, home
from streamer.client.file_lock import FileLock, Patience, is_held
from streamer.client.identity import cluster_at
from streamer.client.interface import ClientError
from streamer.log.checkpoints import CLEAN_SHUTDOWN

USER = """
import sys, time
from pathlib import Path
from streamer.client.embedded import EmbeddedBroker
broker = EmbeddedBroker.join(Path(sys.argv[1]))
print(broker.address, flush=True)
sys.stdin.read()
"""


class User:
    """A user in a process of its own, which leaves when its stdin is closed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def address(self) -> str:
        """Where its broker is, once it is there."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for a broker of our own; it has gone at the end of the test."""
    monkeypatch.chdir(tmp_path)
    found = tmp_path / ".streamer"
    yield found
    if runs(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid(found), signal.SIGKILL)


def pid(folder: Path) -> int:
    return int((folder / "broker" / ".lock").read_text().split()[1])


def runs(folder: Path) -> bool:
    return is_held(folder / "broker" / ".lock")


def starts(folder: Path) -> int:
    """How many brokers have served from there."""
    return (folder / "broker.log").read_text().count(" serves ")


def kill(folder: Path) -> None:
    os.kill(pid(folder), signal.SIGKILL)
    ended(folder)


def ended(folder: Path) -> None:
    wait_until(lambda: not runs(folder), "the broker runs still")


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return cluster_at(host, int(port)) is not None


# Where it is kept.


def test_the_nearest_folder_upward_is_home(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / ".streamer").mkdir()
    (tmp_path / "project" / ".streamer").mkdir()
    (inner / ".streamer").write_text("no folder")

    assert home({}, inner) == tmp_path / "project" / ".streamer"


def test_without_one_home_is_in_the_working_directory(tmp_path: Path) -> None:
    assert home({}, tmp_path) == tmp_path / ".streamer"
    assert home({"STREAMER_HOME": ""}, tmp_path) == tmp_path / ".streamer"


def test_the_environment_names_another_home(tmp_path: Path) -> None:
    (tmp_path / ".streamer").mkdir()

    assert home({"STREAMER_HOME": "/var/data"}, tmp_path) == Path("/var/data")
    assert home({"STREAMER_HOME": "data"}, tmp_path) == tmp_path / "data"
    assert home({"STREAMER_HOME": "~/data"}, tmp_path) == Path.home() / "data"


def test_a_new_home_stays_out_of_version_control(folder: Path) -> None:
    with EmbeddedBroker.join(folder):
        assert (folder / ".gitignore").read_text() == "*\n"


def test_a_home_that_was_there_is_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    with EmbeddedBroker.join(folder):
        assert not (folder / ".gitignore").exists()


# Sharing it.


def test_the_first_user_starts_a_broker_and_the_next_shares_it(folder: Path) -> None:
    told: list[str] = []
    with EmbeddedBroker.join(folder, told.append) as first:
        assert told == [f"The app's own broker serves {first.address} from {first.home}."]
        with EmbeddedBroker.join(folder) as second, User(folder) as third:
            assert first.address == second.address == third.address()
            assert ConfluentAdmin(first.address).cluster().brokers

    assert starts(folder) == 1


def test_two_that_come_at_once_start_one_broker(folder: Path) -> None:
    with User(folder) as one, User(folder) as other, User(folder) as third:
        assert one.address() == other.address() == third.address() != ""

    assert starts(folder) == 1


def test_the_broker_is_in_a_session_of_its_own(folder: Path) -> None:
    with EmbeddedBroker.join(folder):
        assert os.getsid(pid(folder)) == pid(folder) != os.getsid(0)


def test_the_broker_ends_in_order_when_its_last_user_has_left(folder: Path) -> None:
    first, second = EmbeddedBroker.join(folder), EmbeddedBroker.join(folder)

    first.leave()
    time.sleep(1.5)  # it looks every second
    assert runs(folder)

    second.leave()
    second.leave()
    ended(folder)
    assert (folder / "broker" / CLEAN_SHUTDOWN).exists()


def test_the_broker_ends_when_its_last_user_is_killed(folder: Path) -> None:
    with User(folder) as user:
        assert answers(user.address())

        user.process.kill()
        killed = time.monotonic()

        ended(folder)
        assert time.monotonic() - killed < 5  # it looks every second


def test_a_program_that_a_user_has_started_is_no_user(folder: Path) -> None:
    with EmbeddedBroker.join(folder):
        program = subprocess.Popen(["sleep", "60"], close_fds=False)

    with program:
        ended(folder)
        program.kill()


def test_a_user_that_is_killed_while_it_starts_the_broker_is_in_nobodys_way(
    folder: Path,
) -> None:
    for _ in range(5):
        with User(folder):
            wait_until(lambda: (folder / "start.lock").exists(), "nobody starts it")

    with EmbeddedBroker.join(folder) as broker:
        assert answers(broker.address)


def test_data_survive_the_broker(folder: Path) -> None:
    with EmbeddedBroker.join(folder) as broker:
        ConfluentAdmin(broker.address).create_topic(
            "orders", partitions=3, replication=1, configs={}
        )
    ended(folder)

    with EmbeddedBroker.join(folder) as again:
        assert len(ConfluentAdmin(again.address).topic("orders").partitions) == 3
        assert again.address == broker.address


# Coming while it stops.


def test_who_comes_while_the_broker_stops_gets_a_fresh_one(folder: Path) -> None:
    log = folder / "broker.log"
    for count in range(1, 6):
        with EmbeddedBroker.join(folder) as broker:
            assert answers(broker.address)
        # From this line on it holds the lock, and is about to stop.
        while log.read_text().count("Nobody uses") < count:
            time.sleep(0.001)

    with EmbeddedBroker.join(folder) as broker:
        time.sleep(1.5)
        assert answers(broker.address)
    assert starts(folder) == 6


def test_who_comes_waits_for_a_broker_that_takes_its_time_to_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.client.file_lock.SILENCE_SECONDS", 0.1)
    folder.mkdir()
    told: list[str] = []
    with ThreadPoolExecutor() as pool:
        with FileLock(folder / "users.lock", say=print):
            joining = pool.submit(EmbeddedBroker.join, folder, told.append)
            wait_until(lambda: told != [], "nobody waits")
            assert not (folder / "broker").exists()

        with joining.result() as broker:
            assert answers(broker.address)
    assert told[0] == f"Waiting for the broker of {folder}, which is stopping."


def test_who_waits_for_ever_is_told_whom_to_look_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patience, "seconds", 0.1)
    folder.mkdir()

    with (
        FileLock(folder / "users.lock", say=print),
        pytest.raises(ClientError, match=r"(?s)users.lock has been locked.*lsof"),
    ):
        EmbeddedBroker.join(folder)


# Starting it again.


def test_a_broker_that_was_killed_is_started_again_at_its_port(folder: Path) -> None:
    with EmbeddedBroker.join(folder) as broker:
        before = broker.address
        kill(folder)
        assert not answers(before)

        broker.ensure()

        assert broker.address == before
        assert answers(before)


def test_users_that_miss_it_at_the_same_time_start_one_broker(folder: Path) -> None:
    with contextlib.ExitStack() as until_the_end, ThreadPoolExecutor(6) as pool:
        users = [until_the_end.enter_context(EmbeddedBroker.join(folder)) for _ in range(6)]
        kill(folder)

        list(pool.map(EmbeddedBroker.ensure, users))

        assert len({user.address for user in users}) == 1
        assert starts(folder) == 2


def test_a_broker_that_was_told_to_stop_is_followed_by_another_at_once(
    folder: Path,
) -> None:
    with EmbeddedBroker.join(folder) as broker:
        for count in range(2, 5):
            before = pid(folder)
            os.kill(before, signal.SIGTERM)

            wait_until(lambda: not answers(broker.address), "it answers still")
            broker.ensure()

            assert answers(broker.address)
            assert pid(folder) != before
            assert starts(folder) == count


def test_a_broker_that_is_only_slow_to_answer_is_waited_for(folder: Path) -> None:
    with EmbeddedBroker.join(folder) as broker:
        before, running = broker.address, pid(folder)
        os.kill(running, signal.SIGSTOP)
        timer = threading.Timer(3, os.kill, (running, signal.SIGCONT))
        timer.start()

        broker.ensure()
        timer.join()

        assert (broker.address, pid(folder)) == (before, running)
    assert starts(folder) == 1


def test_a_port_taken_meanwhile_is_given_up_and_that_is_told(folder: Path) -> None:
    told: list[str] = []
    with EmbeddedBroker.join(folder, told.append) as broker:
        before = broker.address
        kill(folder)
        with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
            broker.ensure()

        assert answers(broker.address)
        assert broker.address != before
        assert f"has moved from {before} to {broker.address}" in told[-1]
    assert f"Port {before.rpartition(':')[2]}, where" in (folder / "broker.log").read_text()


# An address that is not its own.


@pytest.mark.parametrize("address", ["", "127.0.0.1:1", "nonsense", "::99999", "\0:1"])
def test_an_address_that_leads_nowhere_is_not_followed(folder: Path, address: str) -> None:
    EmbeddedBroker.join(folder).leave()
    ended(folder)
    (folder / "broker" / "address").write_text(address)

    with EmbeddedBroker.join(folder) as broker:
        assert answers(broker.address)


def test_the_broker_of_another_folder_is_not_taken_for_ours(
    folder: Path, tmp_path: Path
) -> None:
    EmbeddedBroker.join(folder).leave()
    ended(folder)
    with start_streamer(tmp_path / "other") as other:
        (folder / "broker" / "address").write_text(other.address)

        with EmbeddedBroker.join(folder) as broker:
            assert answers(broker.address)
            assert broker.address != other.address


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x0a" + b"\x7f" * 10]
)
def test_who_speaks_another_language_has_no_cluster(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        serving = pool.submit(serve)
        assert cluster_at(*server.getsockname()) is None
        serving.result()


def test_who_is_silent_has_no_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert cluster_at(*server.getsockname()) is None


# A broker that was started by hand.


def test_a_broker_started_by_hand_on_the_folder_is_used(
    folder: Path, tmp_path: Path
) -> None:
    with (
        start_streamer(tmp_path / "by hand", data=folder / "broker") as server,
        EmbeddedBroker.join(folder) as broker,
    ):
        assert broker.address == server.address
    assert not (folder / "broker.log").exists()


def test_one_that_listens_everywhere_is_found_on_this_machine(
    folder: Path, tmp_path: Path
) -> None:
    with (
        start_streamer(
            tmp_path / "by hand",
            data=folder / "broker",
            options=("--host", "0.0.0.0", "--port", "0"),
        ) as server,
        EmbeddedBroker.join(folder) as broker,
    ):
        port = server.address.rpartition(":")[2]
        assert broker.address == f"127.0.0.1:{port}"


def test_one_that_does_not_answer_is_named_with_the_way_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patience, "seconds", 0.2)
    with start_streamer(tmp_path / "by hand", data=folder / "broker") as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EmbeddedBrokerFailed) as caught:
                EmbeddedBroker.join(folder)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)

    assert f"(pid {server.process.pid}, {server.address})" in caught.value.problem
    assert "STREAMER_HOME" in caught.value.remedy
    FileLock(folder / "users.lock", say=print).release()  # nobody has kept it


# What it is told, and what it says.


def test_a_home_that_cannot_be_written_to_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(EmbeddedBrokerFailed, match=r"(?s)file/x, .*STREAMER_HOME"):
        EmbeddedBroker.join(tmp_path / "file" / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_of_somebody_else_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)

    with pytest.raises(EmbeddedBrokerFailed, match="STREAMER_HOME"):
        EmbeddedBroker.join(tmp_path / "theirs")


def test_a_broker_that_does_not_start_is_quoted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "streamer.toml").write_text("[broker]\nnum.partitionz = 1\n")
    folder.mkdir()
    (folder / "broker.log").write_text("of the last time\n")

    with pytest.raises(EmbeddedBrokerFailed) as caught:
        EmbeddedBroker.join(folder)

    assert "no setting 'num.partitionz'" in caught.value.problem
    assert str(folder / "broker.log") in caught.value.problem
    assert "of the last time" not in caught.value.problem


def test_its_settings_come_from_the_file_as_for_every_broker(
    folder: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "streamer.toml").write_text(
        f'[broker]\nlisteners = "PLAINTEXT://127.0.0.1:{port}"\nlog.dirs = "elsewhere"\n'
    )

    with EmbeddedBroker.join(folder) as broker:
        assert broker.address == f"127.0.0.1:{port}"
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_set_for_the_app_is_none_of_its_business(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_SOMETHING_OF_THE_APP", "1")

    with EmbeddedBroker.join(folder) as broker:
        assert answers(broker.address)


def test_files_of_the_user_do_not_get_into_the_broker(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "select.py").write_text("raise SystemExit('mine')")

    with EmbeddedBroker.join(folder) as broker:
        assert answers(broker.address)


@pytest.mark.parametrize(("size", "cut"), [(1 << 20, False), (5 << 20, True)])
def test_a_log_that_has_grown_long_is_put_aside(folder: Path, size: int, cut: bool) -> None:
    folder.mkdir()
    (folder / "broker.log").write_bytes(b"x" * size)

    with EmbeddedBroker.join(folder):
        assert ((folder / "broker.log").stat().st_size < size) is cut
        assert (folder / "broker.log.1").exists() is cut
