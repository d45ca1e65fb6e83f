"""The app of the trial: counts and sums by key, behind a repartition.

    in    four partitions, no keys           {"id": 17, "key": "k3", "amount": 5}
    out   one record for each of the input   {"id": 17, "count": 4, "total": 21}

    python -m crash.app '{"broker": "127.0.0.1:9092", "state_dir": "/tmp/state"}' [SEED]

It runs as a worker process of its own until SIGTERM, or until it cannot go on; then it ends
with 1 and says why. With a SEED its commits go wrong now and then: `faulty.py`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import signal
import sys
from typing import Any

from crash import faulty

import streamer

NAME = "crash"
COUNTED = f"{NAME}-count-key-repartition"
TABLES = ("counts", "totals")
LISTENS = "Listening to signals."


class Entry(streamer.Record):
    id: int
    key: str
    amount: int


class Update(streamer.Record):
    id: int
    count: int
    total: int


def make(**settings: Any) -> streamer.App:
    app = streamer.App(NAME, **settings)
    entries = app.topic("in", value_type=Entry, partitions=4)
    updates = app.topic("out", key_type=str, value_type=Update, partitions=4)
    counts = app.Table("counts", default=int, key_type=str, value_type=int)
    totals = app.Table("totals", default=int, key_type=str, value_type=int)

    @app.agent(entries, name="count")
    async def count(stream: streamer.Stream[Entry]) -> None:
        async for entry in stream.group_by(Entry.key):
            counts[entry.key] += 1
            totals[entry.key] += entry.amount
            await updates.send(
                key=entry.key,
                value=Update(entry.id, counts[entry.key], totals[entry.key]),
            )

    return app


async def run(app: streamer.App) -> int:
    from streamer.worker.worker import Worker

    told_to = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to.set)
    logging.info(LISTENS)
    worker = await Worker.start(app)
    failed = asyncio.ensure_future(worker.wait())
    told = asyncio.ensure_future(told_to.wait())
    await asyncio.wait([failed, told], return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if failed.done():
        logging.error("It cannot go on: %s", failed.exception())
        code = 1
    await worker.stop()
    return code


if __name__ == "__main__":
    if len(sys.argv) > 2:
        faulty.install(int(sys.argv[2]))
    faulthandler.register(signal.SIGUSR1)  # where it is, for who waits for it in vain
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(asyncio.run(run(make(**json.loads(sys.argv[1])))))
