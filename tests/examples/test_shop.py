"""The first example that anybody tries, with the commands that its first lines name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import examples
from support.clients import read, wait_until

from streamer.client.embedded import EmbeddedBroker

SCRIPT = "shop.py"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".streamer"


def test_it_counts_what_is_sold_and_says_once_when_to_restock(home: Path) -> None:
    with examples.running(home, SCRIPT, "worker") as worker:
        worker.wait_for("Working on")
        pages = re.search(r"pages at (http://\S+:\d+)/", worker.said)
        assert pages is not None, worker.said
        tea = f"{pages[1]}/table/sold/tea"

        streamer(home, "send", "orders", '{"id": "1", "item": "tea"}')
        wait_until(lambda: sold(tea) == 1, "one is not counted")
        assert streamer(home, "table", "get", "sold", "tea") == "1\n"
        assert "shop.count" in streamer(home, "agents")

        order = '{"id": "%s", "item": "tea", "quantity": %d}'
        streamer(home, "send", "orders", order % ("2", 999))
        wait_until(lambda: sold(tea) == 1000, "a thousand are not counted")
        streamer(home, "send", "@shop.count", order % ("3", 1))
        wait_until(lambda: sold(tea) == 1001, "the agent has got nothing")

    with EmbeddedBroker.join(home) as broker:
        alerts = read(broker.address, "alerts", partitions=examples.PARTITIONS)
        assert [(each.key(), each.value()) for each in alerts] == [(b"tea", b"restock")]


def streamer(home: Path, *arguments: str) -> str:
    """`streamer -A shop ...`, where shop.py is."""
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "-A", "shop", *arguments],
        cwd=examples.FOLDER,
        env=examples.environment_of(home),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sold(page: str) -> int | None:
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            found: int = json.load(answer)["value"]
            return found
    except urllib.error.HTTPError as error:
        error.close()
        return None
