"""One broker, spoken to in the protocol itself over a blocking socket.

For what librdkafka's admin has no call for. A connection asks for the broker's
versions once and sends each request in the latest that both sides know; the answers
are the messages of `streamer.wire`. One request at a time; a broker that is silent
for `TIMEOUT_S` is an error like any other.

Settings are librdkafka's, as all clients have them: TLS is in `tls.py`, what is said to
show who we are in `sasl.py`.
"""

import socket
import ssl
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from streamer.cli import sasl, tls
from streamer.client.interface import BrokerUnavailable, ClientError, NotLetIn
from streamer.client.librdkafka import NOTHING
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.headers import read_response_header, write_request_header
from streamer.wire.messages import (
    ApiVersionsRequest,
    Malformed,
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
    read_response,
    versions,
    write_request,
)

TIMEOUT_S = 5.0
CLIENT_ID = "streamer"
SIZE = struct.Struct(">i")
LARGEST = 100 * 1024 * 1024
# What a client says first must be understood by every broker; 3 tells of features.
FIRST_VERSION, FALLBACK_VERSION = 3, 0


class Connection:
    """A connection to one broker, at `host:port`."""

    def __init__(self, address: str, settings: Mapping[str, Any] = NOTHING) -> None:
        self.address = address
        protocol = str(settings.get("security.protocol", ""))
        self._socket = connected(
            address, tls.context(settings) if protocol.endswith("SSL") else None
        )
        self._correlation_id = 0
        try:
            self.api_versions = self._ask_versions()
            self._served: Mapping[int, range] = {
                api.api_key: range(api.min_version, api.max_version + 1)
                for api in self.api_versions.api_keys
            }
            if protocol.startswith("SASL"):
                self._show_who_we_are(settings)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def call(self, key: ApiKey, request: Any) -> Any:
        """Send the request in the latest version that both know; returns the response."""
        ours, theirs = versions(key), self._served.get(key, range(0))
        both = range(max(ours.start, theirs.start), min(ours.stop, theirs.stop))
        if not both:
            raise ClientError(
                f"{self.address} does not serve {key.title} in a version we know.",
                remedy="Use a later version of the broker.",
            )
        try:
            return self._exchange(key, both[-1], request)
        except Malformed as error:
            raise self._unreadable(error) from None

    def _ask_versions(self) -> Any:
        request = ApiVersionsRequest(
            client_software_name=CLIENT_ID, client_software_version="1"
        )
        try:
            response = self._exchange(ApiKey.API_VERSIONS, FIRST_VERSION, request)
        except Malformed:
            # A broker that does not know the version answers in the oldest.
            try:
                response = self._exchange(
                    ApiKey.API_VERSIONS, FALLBACK_VERSION, ApiVersionsRequest()
                )
            except Malformed as error:
                raise self._unreadable(error) from None
        check(response.error_code, f"Asking {self.address} for its versions")
        return response

    def _show_who_we_are(self, settings: Mapping[str, Any]) -> None:
        mechanism = settings["sasl.mechanism"]
        agreed = self.call(ApiKey.SASL_HANDSHAKE, SaslHandshakeRequest(mechanism=mechanism))
        if agreed.error_code != ErrorCode.NONE:
            offered = ", ".join(agreed.mechanisms) or "none"
            raise NotLetIn(
                f"{self.address} does not take {mechanism}, but {offered}.",
                remedy="Set sasl.mechanism to one of them.",
            )
        said = b""
        steps = sasl.conversation(settings)
        try:
            to_say = next(steps)
            while True:
                asked = SaslAuthenticateRequest(auth_bytes=to_say)
                answer = self.call(ApiKey.SASL_AUTHENTICATE, asked)
                if answer.error_code != ErrorCode.NONE:
                    words = answer.error_message or said.decode(errors="replace")
                    raise NotLetIn(
                        f"{self.address} does not let us in: {words.rstrip('.')}.",
                        remedy="Set sasl.username and sasl.password, and the sasl.mechanism"
                        " that they are for; for OAUTHBEARER, give a token that it takes.",
                    )
                said = answer.auth_bytes
                to_say = steps.send(said)
        except StopIteration:
            pass  # all is said

    def _unreadable(self, error: Malformed) -> ClientError:
        return BrokerUnavailable(
            f"{self.address} answers, but not as a Kafka broker would: {error}."
        )

    def _exchange(self, key: ApiKey, version: int, request: Any) -> Any:
        self._correlation_id += 1
        head = write_request_header(key, version, self._correlation_id, CLIENT_ID)
        body = b"".join([head, *write_request(request, version)])
        try:
            self._socket.sendall(SIZE.pack(len(body)) + body)
            (size,) = SIZE.unpack(self._receive(SIZE.size))
            if not 0 <= size <= LARGEST:
                raise ConnectionError("it does not speak the Kafka protocol")
            frame = self._receive(size)
        except ssl.SSLError as error:
            # It is here that a broker says how it likes our certificate.
            raise no_tls(self.address, error) from None
        except OSError as error:
            raise BrokerUnavailable(
                f"{self.address} accepts connections, but does not answer "
                f"{key.title}: {error}."
            ) from None
        _, at = read_response_header(key, version, frame)
        return read_response(key, version, frame, at)

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._socket.recv(min(size - len(received), 1 << 20))
            if not part:
                raise ConnectionError("it closed the connection")
            received += part
        return bytes(received)


def connected(address: str, context: ssl.SSLContext | None) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        plain = socket.create_connection((host, int(port)), TIMEOUT_S)
    except OSError as error:
        raise BrokerUnavailable(
            f"No broker at {address}: {error.strerror or error}."
        ) from None
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        plain.close()
        raise no_tls(address, error) from None


def no_tls(address: str, error: OSError) -> NotLetIn:
    return NotLetIn(
        f"No TLS with {address}: {error}.",
        remedy="Set ssl.ca.location to the authority that has signed its certificate, and"
        " name the broker as that does; if it wants one of ours, ssl.certificate.location"
        " and ssl.key.location; or name another port, if it knows no TLS.",
    )


def check(code: int, about: str) -> None:
    """Raise ClientError unless the code says that all is well."""
    if code != ErrorCode.NONE:
        raise ClientError(f"{about}: {ErrorCode(code).name}.")
