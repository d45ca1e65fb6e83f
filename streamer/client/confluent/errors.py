"""librdkafka's errors as ours, and whether there is a broker at all."""

import socket

from confluent_kafka import KafkaError

from streamer.client.interface import (
    BrokerUnavailable,
    ClientError,
    Fenced,
    GroupNotEmpty,
    MustAbort,
    NoSuchGroup,
    NoSuchTopic,
    NotAMember,
    NotNow,
    TopicExists,
    Unsendable,
)

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
