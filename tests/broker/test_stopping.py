"""Ending a broker in order, under load: quick, quiet, and all that it promised is there."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.broker import start_streamer
from support.faults import batch, create
from support.raw import Closed, Wire, fetch, fetch_request, only_partition, produce_request

from streamer.wire.error_codes import ErrorCode

WRITERS = 4
# What is answered must be there; a little more may be, which was never answered.
IN_HAND = 5


class Writer(threading.Thread):
    """Produces to its partition, some requests ahead, until the broker hangs up."""

    def __init__(self, address: str, partition: int) -> None:
        super().__init__()
        self.partition = partition
        self.acknowledged = 0
        self.sent = 0
        self.trouble: list[object] = []
        self._wire = Wire(address)

    def run(self) -> None:
        with self._wire as wire:
            try:
                while True:
                    while self.sent - self.acknowledged < IN_HAND:
                        wire.send(
                            produce_request("t", batch(100), partition=self.partition), 9
                        )
                        self.sent += 1
                    self._take(only_partition(wire.receive()))
            except (Closed, ConnectionError):
                pass

    def _take(self, answer: object) -> None:
        code, offset = answer.error_code, answer.base_offset  # type: ignore[attr-defined]
        if (code, offset) != (ErrorCode.NONE, self.acknowledged):
            self.trouble.append(answer)
        self.acknowledged += 1


@contextmanager
def writing(address: str) -> Iterator[list[Writer]]:
    writers = [Writer(address, partition) for partition in range(WRITERS)]
    for writer in writers:
        writer.start()
    while min(writer.acknowledged for writer in writers) < 50:
        time.sleep(0.01)
    yield writers
    for writer in writers:
        writer.join(10)
        assert not writer.is_alive()
        assert writer.trouble == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_under_load_a_broker_keeps_all_it_has_acknowledged(
    tmp_path: Path, number: signal.Signals
) -> None:
    server = start_streamer(tmp_path)
    with Wire(server.address) as wire:
        create(wire, "t", partitions=WRITERS)
        wire.send(fetch_request("t", 0, max_wait_ms=60_000, min_bytes=1 << 30), 12)
        with writing(server.address) as writers:
            began = time.monotonic()
            server.process.send_signal(number)
            server.process.wait(30)
        assert time.monotonic() - began < 6

    assert server.process.returncode == 0
    assert "Traceback" not in server.output.read_text()
    assert (server.logs / ".kafka_cleanshutdown").exists()
    with start_streamer(tmp_path) as again, Wire(again.address) as wire:
        assert again.address == server.address
        for writer in writers:
            end = fetch(wire, "t", 0, partition=writer.partition).high_watermark
            assert writer.acknowledged <= end <= writer.sent


def test_a_port_that_somebody_else_has_taken_is_replaced_or_named(tmp_path: Path) -> None:
    with start_streamer(tmp_path) as server:
        host, port = server.host_and_port
    with socket.create_server((host, port)):
        with start_streamer(tmp_path) as chosen:
            assert chosen.address != server.address

        with pytest.raises(Exception, match=f"Cannot listen at {host}:{port}") as caught:
            start_streamer(tmp_path, options=("--port", str(port)))
    assert "->" in str(caught.value)
    assert "Traceback" not in str(caught.value)

    with start_streamer(tmp_path) as again:
        assert again.address == chosen.address, "the port it told its clients last"
