"""An app that counts, and a second worker of it in a process of its own.

Reads its settings as JSON from the command line, and says when it runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import streamer


def make(id: str, source: str, settings: dict[str, Any]) -> streamer.App:
    app = streamer.App(id, **settings)
    sold: streamer.Table[str, int] = app.Table("sold", default=int)

    @app.agent(app.topic(source, key_type=str), name="count")
    async def count(stream: streamer.Stream[int]) -> None:
        async for item, quantity in stream.items():
            sold[item] += quantity

    return app


async def run(app: streamer.App) -> None:
    async with app:
        print("runs", flush=True)  # noqa: T201 - that is how the test hears of it
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run(make(*json.loads(sys.argv[1]))))
