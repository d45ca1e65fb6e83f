"""librdkafka's errors as ours, and whether there is a broker at all, that lets us in.

librdkafka tries again for ever, whatever it is that it cannot connect by: a call ends with
"no answer", and what is wrong is said beside it, to `error_cb`. `Heard` is there to listen.
"""

import re
import socket
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from streamer.client.interface import (
    BrokerUnavailable,
    ClientError,
    Fenced,
    GroupNotEmpty,
    MustAbort,
    NoSuchGroup,
    NoSuchTopic,
    NotAMember,
    NotLetIn,
    NotNow,
    TopicExists,
    Unsendable,
)

T = TypeVar("T")

CONNECT_S = 3.0  # until a host must have accepted the connection

# What passes by itself.
NOT_NOW = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    # Leadership has just moved, and one of us does not know yet.
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    # "No leaders found": what librdkafka itself says of a partition made just now.
    KafkaError._NOENT,
}

# What a group answers to a member that it no longer counts on.
GONE_ON_WITHOUT_US = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._MAX_POLL_EXCEEDED,
}

# What a producer hears that is not the latest of its transactional id.
FENCED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}

# What is wrong with a record, and will be each time it is sent.
REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}

REMEDIES = {
    KafkaError.INVALID_CONFIG: "`streamer topic describe TOPIC -o wide` lists them all.",
    KafkaError.INVALID_PARTITIONS: "A topic can only grow: ask for more than it has.",
    KafkaError.MSG_SIZE_TOO_LARGE: (
        "`streamer topic alter TOPIC -c max.message.bytes=N` lets larger ones in."
    ),
}

WHERE = "(--set NAME=VALUE, STREAMER_..., or [app] in streamer.toml)"
TOKEN = (
    "See to it that oauth_cb, or sasl.oauthbearer.token.endpoint.url, gives a token that"
    " the broker takes."
)
# What librdkafka, or OpenSSL for it, says of a connection → the way out. The first counts.
WAYS_IN = {
    "current SASL state": "It asks for no password here: leave out sasl.*, with"
    " security.protocol=SSL or none; or name another port of the broker.",
    "mechanism handshake failed": f"Set sasl.mechanism to one that it takes {WHERE}.",
    "OAUTHBEARER": TOKEN,
    "invalid_token": TOKEN,
    "SASL": "Set sasl.username and sasl.password, and the sasl.mechanism that they are for"
    f" {WHERE}, or broker_credentials=... of the App.",
    "PLAINTEXT broker listener": "It knows no TLS at this port: leave out"
    " security.protocol, or name another port of the broker.",
    "certificate verify failed": "Set ssl.ca.location to the file, in PEM, of the authority"
    f" that has signed the broker's certificate {WHERE}, and name the broker as that"
    " certificate does.",
    "alert": "It wants a certificate of ours that it trusts: set ssl.certificate.location"
    f" and ssl.key.location {WHERE}.",
    "": f"Look at security.protocol and ssl.* {WHERE}.",
}
SECURITY_REMEDY = (
    "A broker that asks for TLS or a password wants security.protocol=SSL or SASL_SSL "
    f"{WHERE}."
)


class Heard:
    """What librdkafka says beside the answers: to be given to it as `error_cb`."""

    def __init__(self) -> None:
        self.refusal: NotLetIn | None = None

    def __call__(self, error: KafkaError) -> None:
        self.refusal = self.refusal or refusal(error)


def refusal(error: KafkaError) -> NotLetIn | None:
    """What it means, if it is about TLS or about who we are."""
    said = error.str()
    about_us = error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)
    # A broker that does not like our certificate says so when all seems to be well.
    if not about_us and " alert " not in said and "PLAINTEXT broker" not in said:
        return None
    found = re.fullmatch(r"\w+://([^/]+)/\S+: (.*?)(?: \(after .*\))?", said)
    who, words = (found[1], found[2]) if found else ("The broker", said)
    # Who is not let in wants the words of it, and no numbers of OpenSSL.
    words = re.sub(r"error:[0-9A-F]+:", "", words).rstrip(".? ")
    remedy = next(way for part, way in WAYS_IN.items() if part in said)
    return NotLetIn(f"No way into {who}: {words}.", remedy=remedy)


def made(client: Callable[[dict[str, Any]], T], config: Mapping[str, Any]) -> T:
    """A client of librdkafka, or NotLetIn if it cannot be made with these settings."""
    given = dict(config)
    token = given.get("oauth_cb")
    if token is not None:
        token = given["oauth_cb"] = Token(token)
    try:
        return client(given)
    except KafkaException as error:
        if token is not None and token.problem:
            raise NotLetIn(token.problem, remedy=token.remedy) from token.error
        words = error.args[0].str().rstrip(".")
        raise NotLetIn(
            f"{words}.",
            remedy=f"Look at the settings security.*, sasl.* and ssl.* {WHERE}.",
        ) from None


class Token:
    """A user's function that gives a token, and what was wrong with what it has done.

    librdkafka waits ten seconds for a token, and does not say why there was none.
    """

    def __init__(self, fun: Callable[[str], tuple[str, float]]) -> None:
        self._fun = fun
        self.problem = ""
        self.remedy: str | None = None
        self.error: Exception | None = None

    def __call__(self, config: str) -> tuple[str, float]:
        self.problem, self.error = "", None
        try:
            found = self._fun(config)
            _, ends_at = found
            late = ends_at * 1e9 <= time_ns()
        except Exception as error:
            self.error = error
            self.problem = f"oauth_cb has failed: {type(error).__name__}: {error}."
            self.remedy = "Mend that: it takes a text, and gives (token, when it ends)."
            raise
        if late:
            self.problem = f"oauth_cb gave a token that has ended: at {ends_at}."
            self.remedy = (
                "Give with it when it ends, in seconds since 1970, and not for how long it"
                " is good."
            )
        return found


def check_reachable(bootstrap: str) -> None:
    """Raise BrokerUnavailable unless one of the hosts accepts a connection.

    librdkafka would try for as long as it is asked to and not say what is wrong.
    """
    problems = []
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
            return
        except OSError as error:
            problems.append(f"No broker at {address}: {error.strerror or error}.")
    raise BrokerUnavailable(" ".join(problems))


def translated(error: KafkaError, about: str) -> ClientError:
    """librdkafka's error as one of ours; `about` says what was tried."""
    code, words = error.code(), error.str().rstrip(".")
    if code in (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    ):
        return BrokerUnavailable(f"{about}: no answer from the broker ({words}).")
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return NoSuchTopic(f"{about}: there is no such topic.")
    if code == KafkaError._UNKNOWN_PARTITION:
        return NoSuchTopic(f"{about}: there is no such partition.")
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicExists(f"{about}: there is one of that name already.")
    if code == KafkaError.GROUP_ID_NOT_FOUND:
        return NoSuchGroup(f"{about}: there is no such group.")
    if code == KafkaError.NON_EMPTY_GROUP:
        return GroupNotEmpty(f"{about}: it has members.")
    if code in GONE_ON_WITHOUT_US:
        return NotAMember(f"{about}: {words} ({error.name()}).")
    kind = NotNow if error.retriable() or code in NOT_NOW else ClientError
    return kind(
        f"{about}: {words} ({error.name()}).",
        remedy=REMEDIES.get(code, "The broker refused it; its log may say more."),
    )


def in_transaction(error: KafkaError, about: str) -> ClientError:
    """The same, where it matters what may be done next."""
    words = f"{about}: {error.str().rstrip('.')} ({error.name()})."
    if error.code() in FENCED:
        return Fenced(words)
    if error.txn_requires_abort():
        return Unsendable(words) if error.code() in REFUSED else MustAbort(words)
    if error.retriable():
        return NotNow(words)
    return translated(error, about)


def not_taken(error: KafkaError, about: str) -> ClientError:
    """The same for a record that the producer has not even queued."""
    words = f"{about}: {error.str().rstrip('.')} ({error.name()})."
    if error.code() in FENCED or error.fatal():
        return Fenced(words)
    # Else something has failed before, and the transaction takes no more.
    return Unsendable(words) if error.code() in REFUSED else MustAbort(words)
