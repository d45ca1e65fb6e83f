"""`streamer topic`: create, list, describe, alter, grow and delete topics."""

from collections.abc import Iterable, Sequence

import click

from streamer.cli.access import pass_admin
from streamer.cli.options import config_option
from streamer.cli.output import Column, Row, output_option, say, show_json, show_rows
from streamer.client.interface import Admin, ConfigEntry, Topic

TOPIC_COLUMNS = (
    Column("name", "name"),
    Column("partitions", "partitions"),
    Column("replicas", "replicas"),
    Column("records", "records"),
)
PARTITION_COLUMNS = (
    Column("partition", "partition"),
    Column("leader", "leader"),
    Column("replicas", "replicas"),
    Column("in sync", "in_sync"),
    Column("first", "first_offset"),
    Column("end", "end_offset"),
    Column("records", "records"),
)
LACKING_COLUMNS = (
    Column("topic", "topic"),
    Column("partition", "partition"),
    Column("leader", "leader"),
    Column("replicas", "replicas"),
    Column("in sync", "in_sync"),
    Column("lacking", "lacking"),
)
CONFIG_COLUMNS = (
    Column("config", "name"),
    Column("value", "value"),
    Column("set by", "source"),
)


@click.group("topic")
def topic_group() -> None:
    """Create, list, change and delete topics.

    \b
    Example:
      streamer topic create orders -p 4 -c retention.ms=86400000
    """


@topic_group.command("create")
@click.argument("name")
@click.option(
    "-p", "--partitions", type=click.IntRange(1), help="How many; default: the broker's."
)
@click.option(
    "-r",
    "--replicas",
    type=click.IntRange(1),
    help="Copies of each; default: the broker's.",
)
@config_option("A config of the topic, such as cleanup.policy=compact. May be repeated.")
@pass_admin
def create_command(
    admin: Admin,
    name: str,
    partitions: int | None,
    replicas: int | None,
    configs: Sequence[tuple[str, str]],
) -> None:
    """Create the topic NAME.

    \b
    Example: four partitions, records kept for a day
      streamer topic create orders -p 4 -c retention.ms=86400000
    """
    admin.create_topic(
        name, partitions=partitions or -1, replication=replicas or -1, configs=dict(configs)
    )
    say(f"created {name}")


@topic_group.command("list")
@output_option
@pass_admin
def list_command(admin: Admin, form: str) -> None:
    """List the topics, with how many offsets lie between their first and their end.

    \b
    Example: the names of all topics
      streamer topic list -o json | jq -r '.[].name'
    """
    show_rows(topic_rows(admin), TOPIC_COLUMNS, form)


@topic_group.command("describe")
@click.argument("name", required=False)
@click.option(
    "--under-replicated",
    is_flag=True,
    help="Only partitions with fewer replicas in sync than they should have; without "
    "NAME, of all topics.",
)
@output_option
@pass_admin
def describe_command(
    admin: Admin, name: str | None, under_replicated: bool, form: str
) -> None:
    """Show the partitions and the configs of the topic NAME.

    The table shows the configs that somebody has set; -o wide shows all.

    \b
    Examples: where its partitions end; what a cluster has lost a copy of
      streamer topic describe orders
      streamer topic describe --under-replicated -b kafka-1:9092
    """
    if under_replicated:
        topics = admin.cluster().topics if name is None else [admin.topic(name)]
        show_rows(lacking_rows(topics), LACKING_COLUMNS, form)
        return
    if name is None:
        raise click.UsageError("Name a topic, or ask for --under-replicated.")
    topic = admin.topic(name)
    partitions = partition_rows(admin, topic)
    configs = admin.topic_configs(name)
    if form == "json":
        show_json(
            {
                "name": name,
                "partitions": partitions,
                "configs": [config_row(entry) for entry in configs],
            }
        )
        return
    show_rows(partitions, PARTITION_COLUMNS, form)
    shown = [entry for entry in configs if form == "wide" or not entry.is_default]
    if shown:
        click.echo()
        show_rows([config_row(entry) for entry in shown], CONFIG_COLUMNS, form)


@topic_group.command("delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_admin
def delete_command(admin: Admin, names: Sequence[str], yes: bool) -> None:
    """Delete topics with all their records.

    \b
    Example:
      streamer topic delete orders --yes
    """
    for name in names:
        admin.topic(name)
    if not yes:
        click.confirm(f"Delete {', '.join(names)} with all records?", abort=True, err=True)
    admin.delete_topics(names)
    say(f"deleted {', '.join(names)}")


@topic_group.command("alter")
@click.argument("name")
@config_option("Set this config. May be repeated.")
@click.option(
    "--delete-config",
    "deleted",
    metavar="NAME",
    multiple=True,
    help="Return this config to the broker's default. May be repeated.",
)
@pass_admin
def alter_command(
    admin: Admin, name: str, configs: Sequence[tuple[str, str]], deleted: Sequence[str]
) -> None:
    """Change configs of the topic NAME; those not named stay as they are.

    \b
    Example: keep records for an hour, and segments as the broker has them
      streamer topic alter orders -c retention.ms=3600000 --delete-config segment.bytes
    """
    if not configs and not deleted:
        raise click.UsageError(
            "Nothing to change: give -c name=value or --delete-config name."
        )
    admin.alter_topic_configs(name, changed=dict(configs), deleted=deleted)
    say(f"changed {name}")


@topic_group.command("add-partitions")
@click.argument("name")
@click.argument("count", type=click.IntRange(1))
@pass_admin
def add_partitions_command(admin: Admin, name: str, count: int) -> None:
    """Give the topic NAME COUNT more partitions.

    Keys are spread anew over all partitions: later records of a key may go to
    another partition than its earlier ones.

    \b
    Example: from four to six
      streamer topic add-partitions orders 2
    """
    total = len(admin.topic(name).partitions) + count
    admin.add_partitions(name, total)
    say(f"{name} has {total} partitions")


def topic_rows(admin: Admin) -> list[Row]:
    topics = admin.cluster().topics
    partitions = [each for topic in topics for each in topic.topic_partitions]
    first, end = admin.first_offsets(partitions), admin.end_offsets(partitions)
    return [
        {
            "name": topic.name,
            "partitions": len(topic.partitions),
            "replicas": topic.replication,
            "records": sum(end[each] - first[each] for each in topic.topic_partitions),
        }
        for topic in topics
    ]


def partition_rows(admin: Admin, topic: Topic) -> list[Row]:
    first = admin.first_offsets(topic.topic_partitions)
    end = admin.end_offsets(topic.topic_partitions)
    return [
        {
            "partition": partition.index,
            "leader": partition.leader,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
            "first_offset": first[at],
            "end_offset": end[at],
            "records": end[at] - first[at],
        }
        for partition, at in zip(topic.partitions, topic.topic_partitions, strict=True)
    ]


def lacking_rows(topics: Iterable[Topic]) -> list[Row]:
    """The partitions that lack a replica, and which."""
    return [
        {
            "topic": topic.name,
            "partition": partition.index,
            "leader": None if partition.leader < 0 else partition.leader,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
            "lacking": sorted(set(partition.replicas) - set(partition.in_sync)),
        }
        for topic in topics
        for partition in topic.partitions
        if len(partition.in_sync) < len(partition.replicas)
    ]


def config_row(entry: ConfigEntry) -> Row:
    return {
        "name": entry.name,
        "value": entry.value,
        "source": entry.source,
        "read_only": entry.read_only,
        "sensitive": entry.sensitive,
    }
