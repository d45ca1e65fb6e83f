"""A broker spoken to directly: the real one, and some that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streamer.cli.direct import Connection
from streamer.client.interface import BrokerUnavailable, ClientError
from streamer.wire.api_keys import ApiKey
from streamer.wire.messages import DescribeClusterRequest


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """A server that reads a little, says `data`, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_request_goes_out_in_a_version_that_both_know(bootstrap: str) -> None:
    with Connection(bootstrap) as connection:
        response = connection.call(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest())

    assert [f"{broker.host}:{broker.port}" for broker in response.brokers] == [bootstrap]


def test_a_request_the_broker_does_not_serve_is_an_error(bootstrap: str) -> None:
    with Connection(bootstrap) as connection, pytest.raises(ClientError, match="not serve"):
        connection.call(ApiKey.CONTROLLED_SHUTDOWN, None)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\x00\x00\x00\x05abc",
        b"\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x7f\xff",
    ],
    ids=["http", "nothing", "cut", "rubbish"],
)
def test_who_does_not_speak_the_protocol_is_named(data: bytes) -> None:
    with answering(data) as address, pytest.raises(BrokerUnavailable, match=address):
        Connection(address)
