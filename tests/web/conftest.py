"""One broker for all of these tests; each app has pages at a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import WebBench


@pytest.fixture
def bench(
    bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebBench]:
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path / "home"))
    bench = WebBench(bootstrap, tmp_path)
    yield bench
    bench.close()
