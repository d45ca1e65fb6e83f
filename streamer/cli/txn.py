"""`streamer txn`: which transactions there are, what they wrote; an end for a lost one.

A transaction is known in two places: its coordinator knows its partitions and ends it,
by the time its timeout is over at the latest; each partition knows who has written and not
ended. One that hangs is known to a partition only: no coordinator will ever end it, and
readers of committed records wait for ever. `abort` is for that one alone. It writes the
marker itself, and asks all coordinators first whether one of them will.

librdkafka has no calls for this, so the commands speak to the brokers (`brokers.py`).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from streamer.cli.access import Access, pass_access
from streamer.cli.brokers import Brokers, call_coordinator
from streamer.cli.direct import Connection, check
from streamer.cli.options import Duration, PartitionsType, TopicPartitions
from streamer.cli.output import Column, output_option, say, show_json, show_rows
from streamer.client.interface import Broker, ClientError, TopicPartition
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    ListTransactionsRequest,
    WriteTxnMarkersRequest,
)

# As Kafka spells them.
STATES = (
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "PrepareEpochFence",
)
# In these, the coordinator still has something to do.
UNFINISHED = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")
DESCRIBED_AT_ONCE = 500

TRANSACTION_COLUMNS = (
    Column("transactional id", "transactional_id"),
    Column("state", "state"),
    Column("producer", "producer_id"),
    Column("seconds", "seconds"),
    Column("partitions", "partitions"),
    Column("epoch", "epoch", wide=True),
    Column("timeout s", "timeout_ms", wide=True, scale=1e3),
    Column("started", "started", wide=True),
    Column("coordinator", "coordinator", wide=True),
)
PARTITION_COLUMNS = (
    Column("topic", "topic"),
    Column("partition", "partition"),
    Column("since offset", "start_offset"),
)


class NoSuchTransaction(ClientError):
    remedy = "`streamer txn list` shows what there is."


class WillEndByItself(ClientError):
    """The coordinator knows the transaction; ending it beside the coordinator would lie."""


@click.group("txn")
def txn_group() -> None:
    """See transactions, and abort one that hangs.

    \b
    Example: what has been going on for more than a minute?
      streamer txn list --longer-than 1m
    """


@txn_group.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES, case_sensitive=False),
    multiple=True,
    metavar="STATE",
    help=f"Only these; may be repeated. One of {', '.join(STATES)}.",
)
@click.option(
    "--longer-than", type=Duration(), help="Only those going on for so long: 10s, 5m."
)
@output_option
@pass_access
def list_command(
    access: Access, states: Sequence[str], longer_than: float | None, form: str
) -> None:
    """List transactional ids, and for how long their transactions have gone on.

    \b
    Example: who holds readers of committed records back?
      streamer txn list --state Ongoing --longer-than 10s
    """
    with Brokers(access) as brokers:
        rows = [
            transaction_row(found, broker)
            for broker, connection in brokers.each()
            for found in listed(connection, states)
        ]
    if longer_than is not None:
        rows = [row for row in rows if (row["seconds"] or 0) > longer_than]
    rows.sort(key=lambda row: str(row["transactional_id"]))
    if form == "json":
        show_json(rows)
        return
    counted = [row | {"partitions": len(row["partitions"])} for row in rows]
    show_rows(counted, TRANSACTION_COLUMNS, form)


@txn_group.command("describe")
@click.argument("transactional_id", metavar="ID")
@output_option
@pass_access
def describe_command(access: Access, transactional_id: str, form: str) -> None:
    """Show the transaction of ID: state, producer, timeout, and what it has written.

    \b
    Example:
      streamer txn describe billing-0
    """
    with Brokers(access) as brokers:
        broker, connection = brokers.coordinator_of(transactional_id)
        (found,) = described(connection, [transactional_id])
        if found.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
            raise NoSuchTransaction(f"There is no transactional id {transactional_id!r}.")
        check(found.error_code, f"Asking for {transactional_id!r}")
        row = transaction_row(found, broker)
        row["partitions"] = [
            {
                "topic": at.topic,
                "partition": at.partition,
                "start_offset": start_offset(brokers, at, found.producer_id),
            }
            for at in partitions_of(found)
        ]
    if form == "json":
        show_json(row)
        return
    since = f" for {row['seconds']:,.1f} s" if row["seconds"] is not None else ""
    click.echo(
        f"transactional id {transactional_id}: {row['state']}{since}, "
        f"timeout {row['timeout_ms'] / 1000:g} s, producer {row['producer_id']} "
        f"epoch {row['epoch']}, coordinator {row['coordinator']}\n"
    )
    show_rows(row["partitions"], PARTITION_COLUMNS, form)


@txn_group.command("abort")
@click.argument("where", metavar="TOPIC:PARTITION", type=PartitionsType())
@click.option("--producer", "producer_id", type=int, help="The id of who has written it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_access
def abort_command(
    access: Access, where: TopicPartitions, producer_id: int | None, yes: bool
) -> None:
    """Abort a transaction that hangs in a partition: one that no coordinator knows.

    One that a coordinator knows is refused: it ends by itself when its timeout is over,
    and at once when a producer with its transactional id starts. Without --producer the
    command names the transactions that are open in the partition.

    \b
    Example: `streamer group describe` says that readers of orders:3 are held back
      streamer txn abort orders:3
      streamer txn abort orders:3 --producer 4711
    """
    if where.partition is None:
        raise click.UsageError("Name the partition as well: TOPIC:PARTITION.")
    at = TopicPartition(where.topic, where.partition)
    with Brokers(access) as brokers:
        leader = brokers.leader_of(at)
        written = open_producers(leader, at)
        if producer_id not in written:
            raise which_one(at, written, producer_id)
        producer = written[producer_id]
        refuse_if_known(brokers, at, producer_id)
        if not yes:
            click.confirm(
                f"Abort what producer {producer_id} has written to {at} "
                f"since offset {producer.current_txn_start_offset}?",
                abort=True,
                err=True,
            )
        write_abort(leader, at, producer)
    say(f"aborted the transaction of producer {producer_id} in {at}")


# ---------------------------------------------------------------- asking coordinators


def listed(connection: Connection, states: Sequence[str] = ()) -> Iterator[Any]:
    """The transactions that one broker looks after, described."""
    asked = ListTransactionsRequest(state_filters=list(states))
    found = call_coordinator(connection, ApiKey.LIST_TRANSACTIONS, asked)
    ids = [each.transactional_id for each in found.transaction_states]
    for start in range(0, len(ids), DESCRIBED_AT_ONCE):
        for each in described(connection, ids[start : start + DESCRIBED_AT_ONCE]):
            # It may have expired meanwhile, or gone on to another state.
            wanted = not states or each.transaction_state in states
            if each.error_code == ErrorCode.NONE and wanted:
                yield each


def described(connection: Connection, ids: Sequence[str]) -> Sequence[Any]:
    asked = DescribeTransactionsRequest(transactional_ids=list(ids))
    response = connection.call(ApiKey.DESCRIBE_TRANSACTIONS, asked)
    found: Sequence[Any] = response.transaction_states
    return found


def partitions_of(transaction: Any) -> list[TopicPartition]:
    return sorted(
        TopicPartition(topic.name, index)
        for topic in transaction.topics
        for index in topic.partitions
    )


def transaction_row(found: Any, broker: Broker) -> dict[str, Any]:
    started = seconds = None
    if found.transaction_start_time_ms >= 0 and found.transaction_state in UNFINISHED:
        began = datetime.fromtimestamp(found.transaction_start_time_ms / 1000, UTC)
        started = began.isoformat(timespec="milliseconds")
        # Its clock need not agree with ours.
        seconds = round(max(0.0, (datetime.now(UTC) - began).total_seconds()), 3)
    return {
        "transactional_id": found.transactional_id,
        "state": found.transaction_state,
        "producer_id": found.producer_id,
        "epoch": found.producer_epoch,
        "seconds": seconds,
        "timeout_ms": found.transaction_timeout_ms,
        "started": started,
        "coordinator": f"{broker.id} at {broker.host}:{broker.port}",
        "partitions": list(map(str, partitions_of(found))),
    }


# ------------------------------------------------------------------ asking partitions


def open_producers(leader: Connection, at: TopicPartition) -> dict[int | None, Any]:
    """The producers with a transaction open in the partition, by their ids."""
    topic = DescribeProducersRequest.Topic(name=at.topic, partition_indexes=[at.partition])
    response = leader.call(
        ApiKey.DESCRIBE_PRODUCERS, DescribeProducersRequest(topics=[topic])
    )
    ((found,),) = [each.partitions for each in response.topics]
    check(found.error_code, f"Asking who writes to {at}")
    return {
        producer.producer_id: producer
        for producer in found.active_producers
        if producer.current_txn_start_offset >= 0
    }


def start_offset(brokers: Brokers, at: TopicPartition, producer_id: int) -> int | None:
    """Where the producer's transaction begins; None if it has written nothing yet."""
    producer = open_producers(brokers.leader_of(at), at).get(producer_id)
    return producer and int(producer.current_txn_start_offset)


def which_one(
    at: TopicPartition, written: dict[int | None, Any], wanted: int | None
) -> NoSuchTransaction:
    if not written:
        return NoSuchTransaction(
            f"No transaction is open in {at}.",
            remedy="`streamer txn list --state Ongoing` shows those that go on elsewhere.",
        )
    listing = "".join(
        f"\n  --producer {each.producer_id}  since offset {each.current_txn_start_offset}"
        for each in written.values()
    )
    said = "" if wanted is None else f"Producer {wanted} has none open in {at}. "
    return NoSuchTransaction(f"{said}Open in {at}:{listing}", remedy="Choose one of them.")


def refuse_if_known(brokers: Brokers, at: TopicPartition, producer_id: int | None) -> None:
    """Raise WillEndByItself if a coordinator counts the partition to a transaction."""
    for broker, connection in brokers.each():
        for found in listed(connection, UNFINISHED):
            if found.producer_id == producer_id and at in partitions_of(found):
                row = transaction_row(found, broker)
                raise WillEndByItself(
                    f"The transaction does not hang: {row['transactional_id']!r} "
                    f"is {row['state']} since {row['started']}.",
                    remedy=f"It is aborted {row['timeout_ms'] / 1000:g} s after its start, "
                    "or as soon as a producer with that transactional id starts.",
                )


def write_abort(leader: Connection, at: TopicPartition, producer: Any) -> None:
    topic = WriteTxnMarkersRequest.Topic(name=at.topic, partition_indexes=[at.partition])
    marker = WriteTxnMarkersRequest.Marker(
        producer_id=producer.producer_id,
        producer_epoch=producer.producer_epoch,
        transaction_result=False,
        topics=[topic],
        # Whose first transaction it is has no epoch yet; none is lower than 0.
        coordinator_epoch=max(0, producer.coordinator_epoch),
    )
    response = leader.call(
        ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest(markers=[marker])
    )
    (answered,) = response.markers
    (topic,) = answered.topics
    (partition,) = topic.partitions
    check(partition.error_code, f"Aborting in {at}")
