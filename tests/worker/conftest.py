"""One broker for all; each test has topics, apps and a state folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.apps import Bench

from streamer.worker import pump


@pytest.fixture
def bench(
    bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path / "home"))
    # An app that stops waits for the thread that waits for records.
    monkeypatch.setattr(pump, "WAIT_S", 0.02)
    bench = Bench(bootstrap, tmp_path)
    yield bench
    bench.close()
