"""Stream processing for Python, with a log that speaks the Apache Kafka protocol.

Where to start reading: the files beside this one are the words a user writes (`app`,
`agent`, `stream`, `table`); `worker` runs an app, `state` keeps its tables, `client` is how
both reach any Kafka; `wire`, `log` and `broker` are the built-in one, behind a socket;
`cli` is the `streamer` command.

Names are imported when they are first used: `streamer broker` needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.agent import Agent as Agent
    from streamer.app import App as App
    from streamer.auth import (
        OAuthCredentials as OAuthCredentials,
        SASLCredentials as SASLCredentials,
        SSLCredentials as SSLCredentials,
    )
    from streamer.channel import Channel as Channel
    from streamer.client.interface import TopicPartition as TopicPartition
    from streamer.codecs import Codec as Codec
    from streamer.errors import StreamerError as StreamerError
    from streamer.event import Event as Event, RecordMetadata as RecordMetadata
    from streamer.global_table import GlobalTable as GlobalTable
    from streamer.policy import (
        dead_letter as dead_letter,
        fail as fail,
        retry as retry,
        skip as skip,
    )
    from streamer.record import Record as Record
    from streamer.stream import (
        Skip as Skip,
        Stream as Stream,
        current_event as current_event,
    )
    from streamer.table import Table as Table
    from streamer.topic import Topic as Topic
    from streamer.window import (
        Hopping as Hopping,
        HoppingWindow as HoppingWindow,
        Tumbling as Tumbling,
        TumblingWindow as TumblingWindow,
        WindowRange as WindowRange,
    )
    from streamer.windowed import WindowedTable as WindowedTable, WindowSet as WindowSet

__version__ = "0.1.0"

_PLACES = {
    "agent": ("Agent",),
    "app": ("App",),
    "auth": ("OAuthCredentials", "SASLCredentials", "SSLCredentials"),
    "channel": ("Channel",),
    "client.interface": ("TopicPartition",),
    "codecs": ("Codec",),
    "errors": ("StreamerError",),
    "event": ("Event", "RecordMetadata"),
    "global_table": ("GlobalTable",),
    "policy": ("dead_letter", "fail", "retry", "skip"),
    "record": ("Record",),
    "stream": ("Skip", "Stream", "current_event"),
    "table": ("Table",),
    "topic": ("Topic",),
    "window": ("Hopping", "HoppingWindow", "Tumbling", "TumblingWindow", "WindowRange"),
    "windowed": ("WindowSet", "WindowedTable"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [*sorted(_MODULE_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'streamer' has no attribute {name!r}")
    return getattr(import_module(f"streamer.{_MODULE_OF[name]}"), name)
