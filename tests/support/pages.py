"""Asking a worker for its pages, as a browser or a scraper would."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from support.apps import Bench, running

import streamer

ANSWER_S = 10.0


class WebBench(Bench):
    """Its apps serve pages, each at a port of its own."""

    def app(self, id: str | None = None, **settings: Any) -> streamer.App:
        return super().app(id, **{"web_enabled": True, "web_port": 0, **settings})


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


async def get(
    where: streamer.App | int, path: str, *, method: str = "GET", accept: str = "*/*"
) -> Page:
    """The page of an app that runs here, or of the worker at a port."""
    port = where if isinstance(where, int) else running(where).web_port
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, method=method, headers={"accept": accept})
    return await asyncio.to_thread(_get, request)


def _get(request: urllib.request.Request) -> Page:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as found:
            return Page(found.status, found.read(), dict(found.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Page(error.code, error.read(), dict(error.headers))


async def got(where: streamer.App | int, path: str, status: int) -> Page:
    """The page, once it is answered with this status."""
    page = await get(where, path)
    async with asyncio.timeout(ANSWER_S):
        while page.status != status:
            await asyncio.sleep(0.02)
            page = await get(where, path)
    return page


Labels = tuple[tuple[str, str], ...]


async def metrics(app: streamer.App) -> dict[str, dict[Labels, float]]:
    """What a scraper sees: samples by name, then by labels."""
    page = await get(app, "/metrics")
    assert page.status == 200
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def labels(**named: str) -> Labels:
    return tuple(sorted(named.items()))
