"""Apps as their users call them: real processes, on the embedded broker.

One broker serves all of these tests, each of which has an app with a name of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients import new_name

from streamer.client.embedded import EmbeddedBroker

SHOP = """
import asyncio
import time
import click
import streamer

# Short, so that a worker that has ended is soon forgotten.
app = streamer.App({name!r}, session_timeout_ms=3000, topic_partitions=2)

class Order(streamer.Record):
    id: str
    item: str
    quantity: int = 1

orders = app.topic(app.id + "-orders", value_type=Order)
notes = app.topic(app.id + "-notes", key_type=str, value_type=str, partitions=1)
sold = app.Table("sold", default=int, key_type=str, help="Pieces of each item.")

@app.agent(orders)
async def count(stream):
    '''Counts what is sold.'''
    async for order in stream.group_by(Order.item):
        if order.item == "poison":
            raise ValueError("not to be sold")
        if order.item == "slow":
            await asyncio.sleep(60)
        if order.item == "last":
            asyncio.create_task(app.stop())
        sold[order.item] += order.quantity

@app.agent()
async def double(stream):
    async for number in stream:
        yield 2 * number

@app.command(click.option("--pieces", default=1))
async def sell(self, pieces):
    '''Sell some tea.'''
    await orders.send(value=Order("1", "tea", pieces))
    self.say(f"sold {{pieces}}")

@app.command()
async def twice():
    print(await double.ask(21, timeout=10))

@app.command(name="greet")
def greeting():
    print("hello")

if __name__ == "__main__":
    app.main()
"""


class Worker:
    """A worker in a process of its own, and all that it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, words: str, count: int = 1) -> None:
        until = time.monotonic() + 15
        while self.said.count(words) < count:
            ended = self.process.poll() is not None and not self._reading.is_alive()
            assert not ended, f"It has ended: {self.said}"
            assert time.monotonic() < until, f"No {words!r}: {self.said}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM, within_s: float = 10.0) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.code(within_s)

    def code(self, within_s: float = 10.0) -> int:
        code = self.process.wait(within_s)
        self._reading.join(within_s)
        return code


class Shop:
    """An app in a file, and the command line."""

    def __init__(self, name: str, folder: Path, home: Path) -> None:
        self.name = name
        self.file = folder / f"{name}.py"
        self.file.write_text(SHOP.format(name=name))
        self.home = home
        self.environment = {**os.environ, "STREAMER_HOME": str(home)}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`streamer -A shop WORDS`."""
        return self.run("-m", "streamer", "-A", self.name, *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python WORDS`."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.file.parent,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def ok(self, *words: str) -> str:
        """What it printed; it must have gone well."""
        result = self(*words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def send(self, item: str, *words: str) -> str:
        return self.ok(
            "send", f"{self.name}-orders", f'{{"id": "1", "item": "{item}"}}', *words
        )

    def sold(self, item: str) -> str:
        """The value in the table; empty if it has none."""
        return self("table", "get", "sold", item).stdout.strip()

    @contextlib.contextmanager
    def worker(self, *words: str) -> Iterator[Worker]:
        """`streamer -A shop worker WORDS`, until it works on its partitions."""
        command = [sys.executable, "-m", "streamer", "-A", self.name, "worker", *words]
        process = subprocess.Popen(
            command,
            cwd=self.file.parent,
            env=self.environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        worker = Worker(process)
        try:
            worker.wait_for("Working on")
            yield worker
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            worker._reading.join(10)
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the broker of all these apps is."""
    found = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMER_GROUP_MIN_SESSION_TIMEOUT_MS", "1000")
        broker = EmbeddedBroker.join(found)
    with broker:
        yield found


@pytest.fixture
def shop(tmp_path: Path, home: Path) -> Shop:
    return Shop(new_name("shop").replace("-", "_"), tmp_path, home)
