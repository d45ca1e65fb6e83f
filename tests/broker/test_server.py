"""The broker as a process: a start that fails, and addresses as clients write them."""

import subprocess
import sys
from pathlib import Path

from support.broker import start_streamer
from support.core import Client, running_broker

from streamer.broker.config import Listener
from streamer.log.checkpoints import CLEAN_SHUTDOWN
from streamer.wire.api_keys import ApiKey
from streamer.wire.messages import MetadataRequest

STREAMER = Path(sys.executable).with_name("streamer")


def start(data: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a broker that is expected not to start."""
    command = [str(STREAMER), "broker", "--data-dir", str(data), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_start_that_finds_its_port_taken_leaves_the_log_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_streamer(tmp_path, data=tmp_path / "other") as server:
        port = server.address.rpartition(":")[2]
        failed = start(data, "--port", port)

    assert failed.returncode == 1
    assert "Cannot listen at" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (data / CLEAN_SHUTDOWN).exists()


def test_an_address_file_that_cannot_be_written_is_told_and_the_broker_stops_in_order(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"

    failed = start(data, "--port", "0", "--address-file", str(tmp_path / "no" / "file"))

    assert failed.returncode == 1
    assert "--address-file" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (data / CLEAN_SHUTDOWN).exists()


def test_an_address_with_colons_gets_brackets() -> None:
    assert str(Listener("::1", 9092)) == "[::1]:9092"
    assert str(Listener("127.0.0.1", 9092)) == "127.0.0.1:9092"


async def test_who_comes_in_by_any_address_is_told_the_one_it_found(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "data") as broker:
        broker.addresses = [Listener("0.0.0.0", 9092)]
        client = Client(broker)
        client.connection.session.reached = "10.0.0.7"

        answer = await client.ask(ApiKey.METADATA, 9, MetadataRequest(topics=[]))

    assert [(one.host, one.port) for one in answer.brokers] == [("10.0.0.7", 9092)]
