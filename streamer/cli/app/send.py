"""`send`: a record for a topic or an agent of the app, checked against its type.

What the app declares about a topic is what counts here too: its types, its serializers, and
its partitions should it not be there yet. VALUE is JSON, except where the type is text.
"""

from __future__ import annotations

import asyncio
import difflib
import random
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

import click

from streamer.app import App
from streamer.cli.app.target import broker_of, pass_app
from streamer.cli.options import Assignment, Duration
from streamer.cli.output import show_json
from streamer.client.interface import NoSuchTopic
from streamer.codecs import (
    DECODE_ERRORS,
    ENCODE_ERRORS,
    codec_for,
    decode_error,
    encode_error,
)
from streamer.errors import StreamerError
from streamer.event import RecordMetadata
from streamer.topic import Topic

TYPES = {"str": str, "bytes": bytes, "int": int, "float": float, "bool": bool}
TEXT = (str, bytes)


class WrongRecord(StreamerError):
    """VALUE or --key is not what the topic takes."""


@click.command("send")
@click.argument("entity", metavar="TOPIC|@AGENT")
@click.argument("value", required=False)
@click.option("-k", "--key", help="Records of one key go to one partition, in order.")
@click.option("-K", "--key-type", help="str, int, ... or module:Class; else as declared.")
@click.option("--key-serializer", help="json, raw, binary.")
@click.option("-V", "--value-type", help="The same for VALUE.")
@click.option("--value-serializer", help="json, raw, binary.")
@click.option("--partition", type=click.IntRange(0), help="Default: by the key.")
@click.option("-H", "--header", "headers", type=Assignment(), multiple=True)
@click.option(
    "-r", "--repeat", type=click.IntRange(1), default=1, help="Send it so many times."
)
@click.option("--min-latency", type=Duration(), default=0.0, help="Wait between them.")
@click.option("--max-latency", type=Duration(), default=0.0, help="Up to so long.")
@click.option("-o", "form", type=click.Choice(["table", "json"]), default="table")
@pass_app
def send_command(
    app: App,
    entity: str,
    value: str | None,
    key: str | None,
    key_type: str | None,
    key_serializer: str | None,
    value_type: str | None,
    value_serializer: str | None,
    partition: int | None,
    headers: Sequence[tuple[str, str]],
    repeat: int,
    min_latency: float,
    max_latency: float,
    form: str,
) -> None:
    """Send VALUE to TOPIC, or to the agent whose name follows an @; print where it landed.

    VALUE is JSON; without it, the record deletes its key.

    \b
    Examples:
      streamer -A shop send orders '{"id": "1", "item": "tea"}'
      streamer -A shop send @count '{"id": "2", "item": "tea"}' -k tea --repeat 10
    """
    changed = {
        "key_type": type_named(key_type),
        "key_serializer": key_serializer,
        "value_type": type_named(value_type),
        "value_serializer": value_serializer,
    }
    found = topic_named(app, entity)
    if any(changed.values()):
        found = found.derive(
            found.get_topic_name(), **{name: one for name, one in changed.items() if one}
        )
    parsed_key = None if key is None else read(key, found, "key")
    parsed_value = None if value is None else read(value, found, "value")

    def send() -> Awaitable[RecordMetadata]:
        return found.send(
            key=parsed_key,
            value=parsed_value,
            partition=partition,
            headers={name: text.encode() for name, text in headers} or None,
        )

    with broker_of(app) as broker:
        # The runtime below finds the one that is joined here.
        check_exists(app, found, broker.admin.topic)
        landed = asyncio.run(_send(app, send, repeat, (min_latency, max_latency)))
    show(landed, form)


async def _send(
    app: App,
    send: Callable[[], Awaitable[RecordMetadata]],
    repeat: int,
    latency: tuple[float, float],
) -> list[RecordMetadata]:
    await app.start_client()
    try:
        if not any(latency):
            return list(await asyncio.gather(*(send() for _ in range(repeat))))
        landed = []
        for number in range(repeat):
            if number:
                await asyncio.sleep(random.uniform(latency[0], max(latency)))
            landed.append(await send())
        return landed
    finally:
        await app.stop()


# What is meant.


def topic_named(app: App, entity: str) -> Topic[Any]:
    """The topic of that name as it is declared, or that of an agent."""
    if not entity.startswith("@"):
        found = app.topics.get(entity)
        if found is None:
            return Topic(app, (entity,))
        return found if found.topics == (entity,) else found.derive(entity)
    wanted = entity[1:]
    # `count` will do for `shop.count` where there is no other.
    names = [name for name in app.agents if name == wanted] or [
        name for name in app.agents if name.endswith(f".{wanted}")
    ]
    if len(names) == 1:
        return app.agents[names[0]].topic
    if names:
        raise WrongRecord(
            f"{entity} may be {' or '.join(names)}.", remedy=f"Write @{names[0]}."
        )
    raise WrongRecord(
        f"There is no agent {wanted!r}.",
        remedy=f"There are {', '.join(app.agents) or 'none'}: `agents` lists them.",
    )


def check_exists(app: App, topic: Topic[Any], lookup: Callable[[str], object]) -> None:
    """A topic that the app does not know is not made by a slip of the pen."""
    name = topic.get_topic_name()
    known = {*app.topics, *(one for a in app.agents.values() for one in a.topic.topics)}
    if name in known:
        return
    try:
        lookup(name)
    except NoSuchTopic as error:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        remedy = f"Did you mean {near[0]!r}?" if near else None
        raise WrongRecord(
            f"{error.problem} {app.conf.id} does not declare it either.",
            remedy=remedy or f"`streamer topic create {name}` makes it.",
        ) from None


def type_named(name: str | None) -> Any:
    if name is None or name in TYPES:
        return None if name is None else TYPES[name]
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        raise WrongRecord(
            f"There is no type {name!r}.",
            remedy=f"Write {', '.join(TYPES)}, or module:Class.",
        ) from None


def read(text: str, topic: Topic[Any], part: str) -> Any:
    """What `text` stands for; raises WrongRecord unless it is of the topic's type."""
    of_type = topic.key_type if part == "key" else topic.value_type
    serializer = topic.key_serializer if part == "key" else topic.value_serializer
    encode = topic.encode_key if part == "key" else topic.encode_value
    called = "--key" if part == "key" else "VALUE"
    if of_type in TEXT or (of_type is None and (serializer == "raw" or part == "key")):
        return text.encode() if of_type is bytes else text
    data = text.encode()
    try:
        value = codec_for(of_type, "json", default="json").decode(data)
    except DECODE_ERRORS as error:
        told = decode_error(error, data, f"{called} for {topic.name}")
        raise WrongRecord(told.problem, remedy=_hint(text, of_type, called)) from None
    try:
        encode(value)
    except ENCODE_ERRORS as error:
        told_too = encode_error(error, value, f"{called} for {topic.name}")
        raise WrongRecord(told_too.problem, remedy=told_too.remedy) from None
    return value


def _hint(text: str, of_type: Any, called: str) -> str:
    if of_type is None and not text.startswith(("{", "[", '"')):
        return f"{called} is JSON; text is written in quotes within quotes: '\"{text}\"'."
    name = getattr(of_type, "__name__", "")
    fields = getattr(of_type, "__annotations__", {})
    listed = ", ".join(f"{field}" for field in fields)
    return f"{called} is JSON of {name}{f', which has {listed}' if listed else ''}."


# Where it landed.


def show(landed: Sequence[RecordMetadata], form: str) -> None:
    places: dict[tuple[str, int], list[int]] = {}
    for one in landed:
        places.setdefault((one.topic, one.partition), []).append(one.offset)
    rows = [
        {
            "topic": topic,
            "partition": partition,
            "first_offset": min(offsets),
            "last_offset": max(offsets),
            "records": len(offsets),
        }
        for (topic, partition), offsets in sorted(places.items())
    ]
    if form == "json":
        show_json(rows)
        return
    for row in rows:
        several = row["records"] != 1
        last = f"-{row['last_offset']} ({row['records']:,} records)" if several else ""
        click.echo(f"{row['topic']}:{row['partition']} @ {row['first_offset']}{last}")
