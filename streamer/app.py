"""App: where topics, tables and agents are declared. It runs nothing itself.

    app = streamer.App("shop")
    orders = app.topic("orders", value_type=Order)

    @app.agent(orders)
    async def count(stream): ...

Decorators only record; `app.main()` is the command line, and `async with app:` runs a
worker inside a loop of your own. What runs it is behind three doors, each an import inside
a function: `main` → cli, `start` → worker and web.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, overload

from typing_extensions import TypeVar

from streamer import conf
from streamer.agent import Agent, Asker, InvalidAgent, Question
from streamer.channel import Channel
from streamer.client.interface import TopicPartition
from streamer.codecs import Codec
from streamer.errors import StreamerError
from streamer.event import Event, RecordMetadata
from streamer.global_table import GlobalTable as _GlobalTable
from streamer.policy import OnError, fail
from streamer.processing import Send
from streamer.schedule import Crontab, Every, seconds
from streamer.signals import Signal
from streamer.stream import Stream
from streamer.table import Table as _Table
from streamer.topic import Topic

if TYPE_CHECKING:
    from streamer.web.server import WebServer

T = TypeVar("T", default=Any)
K = TypeVar("K", default=Any)
V = TypeVar("V", default=Any)
Job = Callable[..., Awaitable[Any]]
AnyJob = TypeVar("AnyJob", bound=Callable[..., Any])


class NotRunning(StreamerError):
    """Something was asked for that needs a running app."""

    remedy = "Within a program of your own, run it: `async with app: ...`."


class DeclaredTwice(StreamerError):
    remedy = "Give one of them another name."


class Runtime(Asker, Protocol):
    """A worker that runs the app."""

    async def send_now(self, send: Send) -> RecordMetadata: ...

    def send_soon(self, send: Send) -> None: ...

    async def wait(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Timer:
    """A function that runs at times."""

    name: str
    fun: Job
    schedule: Every | Crontab
    on_leader: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A function that runs once, as soon as the app does."""

    name: str
    fun: Job
    on_leader: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A function that answers HTTP requests."""

    path: str
    fun: Job
    name: str


class App:
    def __init__(
        self,
        id: str,
        *,
        version: int = 1,
        broker: str | list[str] | None = None,
        **settings: Any,
    ) -> None:
        self.id = id
        self.version = version
        self._code = {"broker": broker, **settings}
        self._flags: dict[str, str] = {}
        self._conf: conf.Conf | None = None
        self._runtime: Runtime | None = None
        self._web: WebServer | None = None
        # Those that are declared, by name: the first that has a type.
        self.topics: dict[str, Topic[Any]] = {}
        self.agents: dict[str, Agent[Any]] = {}
        self.tables: dict[str, _Table[Any, Any]] = {}
        self.timers: list[Timer] = []
        self.tasks: list[Task] = []
        self.commands: list[Any] = []
        self.pages: list[Page] = []
        # Each gets what it is about: a set of TopicPartition, or nothing.
        self.on_partitions_assigned = Signal()
        self.on_partitions_revoked = Signal()
        self.on_rebalance_complete = Signal()
        self.on_before_shutdown = Signal()

    def __repr__(self) -> str:
        return f"<App {self.id}>"

    # Settings.

    @property
    def conf(self) -> conf.Conf:
        """The settings in force, read when they are first asked for."""
        if self._conf is None:
            self._conf = conf.load(
                self.id,
                self.version,
                code=self._code,
                flags=self._flags,
                environment=os.environ,
                directory=Path.cwd(),
            )
        return self._conf

    def configure(self, **settings: Any) -> None:
        """Set what `App(...)` would take, until the settings are first used."""
        self._code |= settings
        self._conf = None

    def set_flags(self, flags: Mapping[str, str]) -> None:
        """Settings from a command line, by Kafka's names; they win over all others."""
        self._flags |= flags
        self._conf = None

    # What is declared.

    def topic(
        self,
        *topics: str,
        key_type: Any = None,
        value_type: type[T] | None = None,
        key_serializer: str | Codec | None = None,
        value_serializer: str | Codec | None = None,
        partitions: int | None = None,
        retention: float | timedelta | None = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        replicas: int | None = None,
        internal: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> Topic[T]:
        """A topic, or several that are read as one."""
        topic: Topic[T] = Topic(
            self,
            topics,
            key_type=key_type,
            value_type=value_type,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
            partitions=partitions,
            retention=retention,
            compacting=compacting,
            deleting=deleting,
            replicas=replicas,
            internal=internal,
            config=config,
        )
        for name in topics:
            if getattr(self.topics.get(name), "value_type", None) is None:
                self.topics[name] = topic
        return topic

    def agent(
        self,
        channel: Topic[T] | str | None = None,
        *,
        name: str | None = None,
        concurrency: int = 1,
        sink: Iterable[Any] = (),
        on_error: OnError = fail,
        isolated_partitions: bool = False,
        help: str = "",
    ) -> Callable[[Callable[[Stream[T]], Awaitable[Any] | AsyncIterator[Any]]], Agent[T]]:
        """Declare an agent: an async function over the records of a topic."""

        def declare(
            fun: Callable[[Stream[T]], Awaitable[Any] | AsyncIterator[Any]],
        ) -> Agent[T]:
            called = name or _name_of(fun)
            if called in self.agents:
                raise DeclaredTwice(f"There are two agents {called!r}.")
            topic = channel
            if isinstance(topic, Channel) and isolated_partitions:
                raise InvalidAgent(
                    f"Agent {called} is to have an actor for each partition of a channel,"
                    " which has none.",
                    remedy="Leave out isolated_partitions.",
                )
            if not isinstance(topic, Topic):
                topic = self.topic(topic or f"{self.conf.id}-{called}")
            agent = Agent(
                self,
                fun,
                called,
                topic,
                concurrency=concurrency,
                sink=sink,
                on_error=on_error,
                isolated_partitions=isolated_partitions,
                help=help,
            )
            self.agents[called] = agent
            return agent

        return declare

    def Table(  # noqa: N802 - Faust's name
        self,
        name: str,
        *,
        default: Callable[[], V] | None = None,
        key_type: type[K] | None = None,
        value_type: type[V] | None = None,
        key_serializer: str | Codec | None = None,
        value_serializer: str | Codec | None = None,
        partitions: int | None = None,
        help: str | None = None,
    ) -> _Table[K, V]:
        """Declare a table: a dict that survives, by key of the records."""
        table: _Table[K, V] = _Table(
            name,
            default=default,
            key_type=key_type,
            value_type=value_type,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
            partitions=partitions,
            help=help,
        )
        return self._declared(table)

    def GlobalTable(  # noqa: N802
        self,
        name: str,
        *,
        default: Callable[[], V] | None = None,
        key_type: type[K] | None = None,
        value_type: type[V] | None = None,
        key_serializer: str | Codec | None = None,
        value_serializer: str | Codec | None = None,
        partitions: int | None = None,
        help: str | None = None,
    ) -> _GlobalTable[K, V]:
        """Declare a table that every worker has the whole of, to be read anywhere."""
        table: _GlobalTable[K, V] = _GlobalTable(
            name,
            default=default,
            key_type=key_type,
            value_type=value_type,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
            partitions=partitions,
            help=help,
        )
        self._declared(table)
        return table

    @overload
    def channel(
        self, *, value_type: type[T], key_type: Any = None, maxsize: int | None = None
    ) -> Channel[T]: ...
    @overload
    def channel(
        self, *, value_type: Any = None, key_type: Any = None, maxsize: int | None = None
    ) -> Channel[Any]: ...
    def channel(
        self, *, value_type: Any = None, key_type: Any = None, maxsize: int | None = None
    ) -> Channel[Any]:
        """A queue in memory; its records are in no transaction."""
        return Channel(self, key_type=key_type, value_type=value_type, maxsize=maxsize)

    def _declared(self, table: _Table[K, V]) -> _Table[K, V]:
        if table.name in self.tables:
            raise DeclaredTwice(f"There are two tables {table.name!r}.")
        self.tables[table.name] = table
        return table

    def timer(
        self,
        interval: float | timedelta | str,
        *,
        on_leader: bool = False,
        name: str | None = None,
    ) -> Callable[[AnyJob], AnyJob]:
        """Run a function each so many seconds."""

        def declare(fun: AnyJob) -> AnyJob:
            schedule = Every(seconds(interval))
            self.timers.append(Timer(name or _name_of(fun), fun, schedule, on_leader))
            return fun

        return declare

    def crontab(
        self,
        cron_format: str,
        *,
        timezone: str | tzinfo | None = None,
        on_leader: bool = False,
        name: str | None = None,
    ) -> Callable[[AnyJob], AnyJob]:
        """Run a function when a crontab says so: `0 20 * * *` is each day at eight."""

        def declare(fun: AnyJob) -> AnyJob:
            schedule = Crontab(cron_format, timezone or self.conf.timezone)
            self.timers.append(Timer(name or _name_of(fun), fun, schedule, on_leader))
            return fun

        return declare

    @overload
    def task(self, fun: AnyJob, *, on_leader: bool = False) -> AnyJob: ...
    @overload
    def task(self, *, on_leader: bool = False) -> Callable[[AnyJob], AnyJob]: ...
    def task(
        self, fun: AnyJob | None = None, *, on_leader: bool = False
    ) -> AnyJob | Callable[[AnyJob], AnyJob]:
        """Run a function once, when the worker has started: `@app.task`."""

        def declare(fun: AnyJob) -> AnyJob:
            self.tasks.append(Task(_name_of(fun), fun, on_leader))
            return fun

        return declare if fun is None else declare(fun)

    def command(self, *options: Any, name: str | None = None) -> Callable[[AnyJob], AnyJob]:
        """Add a command to the app's command line; `options` are click's decorators."""

        def declare(fun: AnyJob) -> AnyJob:
            self.commands.append((name or fun.__name__.replace("_", "-"), fun, options))
            return fun

        return declare

    def page(self, path: str, *, name: str | None = None) -> Callable[[AnyJob], AnyJob]:
        """Answer HTTP requests for a path with what an async function returns."""

        def declare(fun: AnyJob) -> AnyJob:
            self.pages.append(Page(path, fun, name or _name_of(fun)))
            return fun

        return declare

    # What is done with it.

    async def send(
        self,
        channel: Topic[Any] | Agent[Any] | str,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> RecordMetadata:
        """Send a record to a topic, by its name if you like, or to an agent."""
        target = Topic(self, (channel,)) if isinstance(channel, str) else channel
        return await target.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers
        )

    async def send_now(self, send: Send) -> RecordMetadata:
        return await self._running.send_now(send)

    def send_soon(self, send: Send) -> None:
        self._running.send_soon(send)

    async def ask(self, question: Question) -> Any:
        return await self._running.ask(question)

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise NotRunning(f"App {self.id} is not running.")
        return self._runtime

    def read(
        self, topic: Topic[T], begin: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[Event[T]]:
        """All that is committed in a topic, from its beginning to where it ends now.

        For commands that replay a log. It needs no worker, and blocks.
        """
        from streamer.worker.reading import read

        return read(self, topic, begin or {})

    async def start(self) -> None:
        """Run a worker in this loop; returns once agents and pages are there."""
        from streamer.worker.worker import Worker

        if not self.conf.web_enabled:
            await Worker.start(self)
            return
        from streamer.web.server import WebServer

        def bind(slot: Path) -> int:
            conf = self.conf
            self._web = WebServer.bind(conf.web_bind, conf.web_port, slot / "web-port")
            return self._web.port

        try:
            worker = await Worker.start(self, bind)
            assert self._web is not None, "a worker that starts has asked for its port"
            await self._web.serve(worker)
        except BaseException:
            await self.stop()
            raise

    async def start_client(self) -> None:
        """Be able to send and ask, without processing anything; `stop` ends it."""
        from streamer.worker.client_only import ClientOnly

        self.attach(ClientOnly(self))

    async def wait(self) -> None:
        """Until the worker cannot go on; raises why."""
        await self._running.wait()

    async def stop(self) -> None:
        """Stop the worker in order: what is done is committed."""
        if self._runtime is not None:
            await self._runtime.stop()
        if self._web is not None:
            web, self._web = self._web, None
            await web.stop()

    def attach(self, runtime: Runtime) -> None:
        """A worker runs the app from now on."""
        if self._runtime is not None:
            raise DeclaredTwice(
                f"App {self.id} runs already.", remedy="One process runs it once."
            )
        self._runtime = runtime

    def detach(self) -> None:
        self._runtime = None

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def main(self) -> None:
        """The command line of this app: `python shop.py worker`."""
        from streamer.cli.main import app_main

        app_main(self)


def _name_of(fun: Callable[..., Any]) -> str:
    """`module.function`; the same whether the module is run or imported."""
    module = fun.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        module = spec.name if spec else Path(getattr(main, "__file__", "main")).stem
    return f"{module}.{fun.__name__}"
