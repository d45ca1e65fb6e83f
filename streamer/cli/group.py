"""`streamer group`: who reads what, how far they have come, and where they go on from.

`describe` says what a person looks for first: partitions that nobody has committed, members
that have nothing to do, a split that is uneven, and transactions that hold readers back.
`seek` changes offsets only while nobody is in the group: a member would commit its own
over them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from streamer.cli.access import pass_admin
from streamer.cli.options import PartitionsType, TopicPartitions
from streamer.cli.output import Column, Row, output_option, say, show_json, show_rows
from streamer.cli.place import Place, parse_place
from streamer.client.interface import (
    Admin,
    Group,
    GroupMember,
    GroupNotEmpty,
    NoSuchGroup,
    NoSuchTopic,
    TopicPartition,
)

Offsets = Mapping[TopicPartition, int]

GROUP_COLUMNS = (
    Column("group", "group"),
    Column("state", "state"),
    Column("members", "members"),
    Column("kind", "kind", wide=True),
    Column("assignor", "assignor", wide=True),
    Column("coordinator", "coordinator", wide=True),
)
POSITION_COLUMNS = (
    Column("topic", "topic"),
    Column("partition", "partition"),
    Column("committed", "committed"),
    Column("end", "end"),
    Column("lag", "lag"),
    Column("member", "member"),
    Column("client", "client"),
    Column("host", "host"),
    Column("instance", "instance", wide=True),
)
SEEK_COLUMNS = (
    Column("topic", "topic"),
    Column("partition", "partition"),
    Column("before", "before"),
    Column("after", "after"),
)


class PlaceType(click.ParamType[Place]):
    name = "place"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Place:
        try:
            return parse_place(value)
        except ValueError:
            self.fail(
                f"{value!r} is no place in a topic.\n"
                "  -> Write start, end, 42, -10 or @2026-11-20T10:00.",
                parameter,
                context,
            )


@click.group("group")
def group_group() -> None:
    """See how far consumer groups have come, and move them.

    \b
    Example: what has the group still to read, and who reads it?
      streamer group describe billing
    """


@group_group.command("list")
@output_option
@pass_admin
def list_command(admin: Admin, form: str) -> None:
    """List the groups, each with its state and how many members it has.

    \b
    Example: groups that nobody is in
      streamer group list -o json | jq -r '.[] | select(.members == 0) | .group'
    """
    show_rows([group_row(group) for group in admin.groups()], GROUP_COLUMNS, form)


@group_group.command("describe")
@click.argument("name", metavar="GROUP")
@output_option
@pass_admin
def describe_command(admin: Admin, name: str, form: str) -> None:
    """Show each partition of GROUP: committed, end, lag, and the member that reads it.

    \b
    Example: the lag in all
      streamer group describe billing -o json | jq .lag
    """
    group = admin.group(name)
    committed = admin.committed(name)
    assigned = {at for member in group.members for at in member.partitions}
    known = {at for topic in admin.cluster().topics for at in topic.topic_partitions}
    there = sorted((assigned | committed.keys()) & known)
    ends = admin.end_offsets(there)
    stable = admin.end_offsets(there, committed=True)

    rows = position_rows(group, committed, ends)
    lag = sum(row["lag"] or 0 for row in rows)
    found = [*remarks(group, committed, ends), *held_back(ends, stable)]
    if form == "json":
        members = [member_row(member) for member in group.members]
        show_json(
            group_row(group)
            | {"lag": lag, "members": members, "partitions": rows, "remarks": found}
        )
        return
    click.echo(
        f"group {name}: {group.state}, {len(group.members)} members, "
        f"{group.assignor or 'no assignor'}, coordinator {coordinator(group)}, "
        f"lag {lag:,}\n"
    )
    show_rows(rows, POSITION_COLUMNS, form)
    for remark in found:
        say(remark)


@group_group.command("seek")
@click.argument("name", metavar="GROUP")
@click.option(
    "--to",
    "place",
    type=PlaceType(),
    required=True,
    help="start, end, @TIME (2026-11-20T10:00 or milliseconds), an offset, or -N for the "
    "last N of each partition.",
)
@click.option(
    "-t",
    "--topic",
    "wanted",
    type=PartitionsType(),
    multiple=True,
    required=True,
    help="TOPIC or TOPIC:PARTITION. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@output_option
@pass_admin
def seek_command(
    admin: Admin,
    name: str,
    place: Place,
    wanted: Sequence[TopicPartitions],
    dry_run: bool,
    form: str,
) -> None:
    """Let GROUP go on from another place, once all its members have been stopped.

    Prints the offsets before and after. An offset that a partition does not have becomes
    its first or its end. A group that does not exist yet comes into being.

    \b
    Examples:
      streamer group seek billing --to start -t orders --dry-run
      streamer group seek billing --to @2026-11-20T10:00 -t orders -t refunds
      streamer group seek billing --to 42 -t orders:3      # past a record that breaks it
    """
    partitions = named_partitions(admin, wanted)
    members = members_of(admin, name)
    if members and not dry_run:
        raise in_use(name, members)
    before = admin.committed(name)
    after = within(place(admin, partitions), admin, partitions)
    if not dry_run:
        admin.set_committed(name, after)
    rows = [
        {
            "topic": at.topic,
            "partition": at.partition,
            "before": before.get(at),
            "after": after[at],
        }
        for at in partitions
    ]
    show_rows(rows, SEEK_COLUMNS, form)
    if dry_run:
        say("a dry run: nothing was changed")
    if dry_run and members:
        say(in_use(name, members).problem)


@group_group.command("delete")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_admin
def delete_command(admin: Admin, names: Sequence[str], yes: bool) -> None:
    """Delete groups with the offsets that they have committed.

    \b
    Example:
      streamer group delete billing --yes
    """
    for name in names:
        members = admin.group(name).members
        if members:
            raise in_use(name, members)
    if not yes:
        click.confirm(
            f"Delete {', '.join(names)} with all committed offsets?", abort=True, err=True
        )
    for name in names:
        admin.delete_group(name)
    say(f"deleted {', '.join(names)}")


# ------------------------------------------------------------------- what to show


def coordinator(group: Group) -> str:
    where = group.coordinator
    return f"{where.id} at {where.host}:{where.port}"


def group_row(group: Group) -> dict[str, object]:
    return {
        "group": group.name,
        "state": group.state,
        "members": len(group.members),
        "kind": group.kind,
        "assignor": group.assignor or None,
        "coordinator": coordinator(group),
    }


def member_row(member: GroupMember) -> Row:
    return {
        "member": member.id,
        "instance": member.instance_id,
        "client": member.client_id,
        "host": member.host,
        "partitions": len(member.partitions),
    }


def position_rows(group: Group, committed: Offsets, ends: Offsets) -> list[dict[str, Any]]:
    """A row for each partition that is read by a member, or was by somebody."""
    readers = {at: member for member in group.members for at in member.partitions}
    rows = []
    for at in sorted(readers.keys() | committed.keys()):
        reader, offset, end = readers.get(at), committed.get(at), ends.get(at)
        lag = None if offset is None or end is None else max(0, end - offset)
        rows.append(
            {
                "topic": at.topic,
                "partition": at.partition,
                "committed": offset,
                "end": end,
                "lag": lag,
                "member": reader and reader.id,
                "client": reader and reader.client_id,
                "host": reader and reader.host,
                "instance": reader and reader.instance_id,
            }
        )
    return rows


def remarks(group: Group, committed: Offsets, ends: Offsets) -> Iterator[str]:
    """What somebody should know who looks after the group."""
    assigned = {at for member in group.members for at in member.partitions}
    for at in sorted(assigned - committed.keys()):
        yield f"{at}: no committed offset"
    for at, offset in sorted(committed.items()):
        if at not in ends:
            yield f"{at}: there is no such partition any more"
        elif offset > ends[at]:
            yield f"{at}: committed behind its end; has the topic been made anew?"
    if group.state != "Stable":
        return
    if unread := sorted((committed.keys() & ends.keys()) - assigned):
        yield f"{', '.join(map(str, unread))}: no member reads it"
    idle = [member for member in group.members if not member.partitions]
    for member in idle:
        yield f"{member.id} at {member.host} is idle: it has no partition"
    shares = {member: len(member.partitions) for member in group.members}
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    if not idle and shares[most] > shares[least] + 1:
        yield (
            f"an uneven split: {most.id} has {shares[most]} partitions, "
            f"{least.id} has {shares[least]}"
        )


def held_back(ends: Offsets, stable: Offsets) -> Iterator[str]:
    for at, end in ends.items():
        if stable[at] < end:
            yield (
                f"{at}: an open transaction holds back readers of committed records at "
                f"{stable[at]}; `streamer txn abort {at}` tells whose"
            )


# ------------------------------------------------------------------- where to seek


def named_partitions(
    admin: Admin, wanted: Sequence[TopicPartitions]
) -> list[TopicPartition]:
    found = set()
    for topic, index in wanted:
        partitions = admin.topic(topic).topic_partitions
        if index is not None and TopicPartition(topic, index) not in partitions:
            raise NoSuchTopic(
                f"{topic} has no partition {index}.",
                remedy=f"It has 0 to {len(partitions) - 1}.",
            )
        found |= set(partitions) if index is None else {TopicPartition(topic, index)}
    return sorted(found)


def within(
    offsets: Offsets, admin: Admin, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offsets, each moved to where its partition has records, if it lies outside."""
    first, end = admin.first_offsets(partitions), admin.end_offsets(partitions)
    return {at: min(max(offsets[at], first[at]), end[at]) for at in partitions}


def members_of(admin: Admin, name: str) -> Sequence[GroupMember]:
    try:
        return admin.group(name).members
    except NoSuchGroup:
        return ()


def in_use(name: str, members: Sequence[GroupMember]) -> GroupNotEmpty:
    """Who is in the group, so that they can be found and stopped."""
    clients = Counter(f"{member.client_id} at {member.host}" for member in members)
    who = ", ".join(
        client if times == 1 else f"{times} x {client}" for client, times in clients.items()
    )
    return GroupNotEmpty(
        f"Group {name!r} has members: {who}.",
        remedy="Stop them first. A member that was killed leaves when its session "
        f"is over; `streamer group describe {name}` shows who is there.",
    )
