"""The message tables: how they are read, and that all of them are in order."""

from pathlib import Path
from textwrap import dedent

import pytest

from streamer.wire import messages, reader, writer
from streamer.wire.api_keys import ApiKey
from streamer.wire.definition import SchemaError, load, parse
from streamer.wire.messages import CreatePartitionsResponse, MetadataRequest

TABLES = sorted(Path(messages.__file__).with_name("schema").glob("*.txt"))


def table(request: str) -> str:
    body = "".join(f"  {line}\n" for line in dedent(request).strip().splitlines())
    return f"# About it.\nversions 2-7\nflexible 5+\nrequest\n{body}response\n  done bool\n"


def test_a_table_becomes_the_definition_of_a_message() -> None:
    request, response = parse(
        table(
            """
            name      string?            # a comment
            ids       [int32]  3+        = 0 ignorable
            nodes     [Node]?4+
              host    string
              rack    string?6+
              leader  Leader   6+        tag 1
                epoch int32              = -1
            """.replace(" = 0 ignorable", " ignorable")
        ),
        ApiKey.METADATA,
    )
    name, ids, nodes = request.fields
    host, rack, leader = nodes.fields

    assert (request.name, response.name) == ("MetadataRequest", "MetadataResponse")
    assert (request.versions, request.flexible) == (range(2, 8), range(5, 8))
    assert (name.versions, name.nullable, name.default) == (range(2, 8), range(2, 8), None)
    assert (ids.array, ids.versions, ids.ignorable, ids.default) == (
        True,
        range(3, 8),
        True,
        (),
    )
    assert (nodes.type, nodes.array, nodes.nullable) == ("Node", True, range(4, 8))
    assert (host.default, rack.nullable, rack.default) == ("", range(6, 8), "")
    assert (leader.tag, leader.versions, leader.default) == (1, range(6, 8), None)
    assert leader.fields[0].default == -1
    assert leader.fields[0].versions == range(6, 8)


def test_a_message_that_is_never_flexible_has_no_version_with_tags() -> None:
    request, _ = parse(
        table("name string").replace("flexible 5+", "flexible none"), ApiKey.FETCH
    )

    assert not any(version in request.flexible for version in request.versions)
    assert messages.flexible_from(ApiKey.OFFSET_DELETE) == messages.NEVER


@pytest.mark.parametrize(
    "line",
    [
        "acks int17",  # no such type, nor a struct
        "acks",
        "Acks int16",
        "acks int16 sometimes",
        "acks int16 ignorable = 1",
        "acks [int16",
        "acks int16\n    below int16",
        "   acks int16",
    ],
)
def test_a_line_that_is_no_field_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(SchemaError, match=r"line 5: .*[aA]cks"):
        parse(
            "# About it.\nversions 2-7\nflexible 5+\nrequest\n  " + line + "\nresponse\n",
            ApiKey.FETCH,
        )


@pytest.mark.parametrize(
    "text", ["", "versions 1\nrequest\nresponse\n", "request\n  a int8\n"]
)
def test_a_table_without_its_head_is_refused(text: str) -> None:
    with pytest.raises(
        SchemaError, match="expected versions, flexible, request and response"
    ):
        parse(text, ApiKey.FETCH)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_begins_with_what_the_message_is_for_and_has_a_key(path: Path) -> None:
    number, _, name = path.stem.partition("_")

    assert path.read_text().startswith("# ")
    assert ApiKey(int(number)).name == name.upper()
    assert load(ApiKey(int(number))) is not None


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (reader, reader.source_of_reader(MetadataRequest, 9)),
        (writer, writer.source_of_writer(CreatePartitionsResponse, 3)),
    ],
)
def test_the_introductions_show_what_is_really_compiled(
    module: object, source: object
) -> None:
    shown = [
        line.strip() for line in (module.__doc__ or "").splitlines() if line[:4] == "    "
    ]
    made = iter(line.strip() for line in str(getattr(source, "text", "")).splitlines())

    assert shown
    for line in shown:
        if line != "...":
            assert line in made, f"{line!r} does not come, or not in this place"
