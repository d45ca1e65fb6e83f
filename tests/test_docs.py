"""The documentation is held against the code."""

import re
from pathlib import Path

import pytest

from streamer.broker.api import table
from streamer.broker.config import BROKER_OPTIONS
from streamer.conf import OPTIONS
from streamer.log.config import TOPIC_OPTIONS
from streamer.wire.messages import NEVER, flexible_from

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


def table_of_keys() -> str:
    lines = ["| Key | Request | Versions | Flexible from |", "|--:|---|---|--:|"]
    for api in sorted(table(), key=lambda api: api.key):
        versions = f"{api.lowest}-{api.highest}"
        flexible = flexible_from(api.key)
        since = "never" if flexible == NEVER else str(flexible)
        lines.append(f"| {int(api.key)} | {api.key.title} | {versions} | {since} |")
    return "\n".join(lines)


def table_of_topic_settings() -> str:
    lines = ["| Setting | Default | What it does |", "|---|---|---|"]
    for entry in TOPIC_OPTIONS.values():
        option = entry.option
        lines.append(f"| `{option.name}` | {option.default or 'empty'} | {option.doc} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("table of keys", table_of_keys()), ("topic settings", table_of_topic_settings())],
)
def test_a_table_made_from_the_code_stands_in_the_page(name: str, expected: str) -> None:
    page = (DOCS / "kafka-compatibility.md").read_text()
    found = re.search(f"<!-- {name}: begin -->\n(.*?)\n?<!-- {name}: end -->", page, re.S)
    assert found is not None

    assert found[1] == expected, f"put this into the page:\n{expected}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = BROKER_OPTIONS.keys() | TOPIC_OPTIONS.keys()
    families = {name.partition(".")[0] for name in known}
    known |= OPTIONS.keys()
    for name in re.findall(r"(?:--set |`)([a-z]+(?:\.[a-z]+)+)(?=[ =`])", page.read_text()):
        assert name in known or name.partition(".")[0] not in families, name
