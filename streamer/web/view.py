"""A worker as its pages see it. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from streamer.client.interface import Group, TopicPartition
from streamer.state.recovery import Progress

if TYPE_CHECKING:
    from streamer.app import App


class LatelySeen(Protocol):
    @property
    def average_s(self) -> float: ...
    @property
    def longest_s(self) -> float: ...


class Counted(Protocol):
    """What it has done since it began."""

    @property
    def records(self) -> Mapping[str, int]: ...
    @property
    def batches(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def changes(self) -> int: ...
    @property
    def commits(self) -> int: ...
    @property
    def aborts(self) -> int: ...
    @property
    def commit_seconds(self) -> float: ...
    @property
    def commits_lately(self) -> LatelySeen: ...
    @property
    def rebalances(self) -> int: ...
    @property
    def stalls(self) -> int: ...
    @property
    def stalled_seconds(self) -> float: ...
    @property
    def dropped(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def errors(self) -> Mapping[str, int]: ...
    @property
    def late(self) -> Mapping[str, int]: ...


class AgentSeen(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    @property
    def in_hand(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def oldest_s(self) -> float: ...
    @property
    def stuck_s(self) -> float: ...


class TableSeen(Protocol):
    """One partition of a table that is here."""

    @property
    def name(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def keys(self) -> int | None: ...
    @property
    def changed(self) -> int: ...


class Standing(Protocol):
    """What it has in hand at one moment."""

    @property
    def agents(self) -> Sequence[AgentSeen]: ...
    @property
    def tables(self) -> Sequence[TableSeen]: ...
    @property
    def positions(self) -> Mapping[TopicPartition, int]: ...
    @property
    def watermarks(self) -> Mapping[TopicPartition, tuple[int, int]]: ...
    @property
    def staged_sends(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def polled_s(self) -> float: ...
    @property
    def undone_s(self) -> float: ...
    @property
    def recovery(self) -> Progress | None: ...
    @property
    def failure(self) -> str: ...


class View(Protocol):
    @property
    def app(self) -> App: ...

    @property
    def slot_name(self) -> str:
        """Who it is in its group."""

    @property
    def client_id(self) -> str:
        """`app@host:port/slot`: where its pages are."""

    @property
    def counters(self) -> Counted: ...

    @property
    def started_at(self) -> float:
        """By the monotonic clock."""

    @property
    def stopping(self) -> bool: ...

    @property
    def ready(self) -> bool:
        """It works on all that the group has given it, which may be nothing."""

    def standing(self) -> Standing: ...

    def group(self) -> Group:
        """All workers of the app, as the broker knows them. Blocks."""
