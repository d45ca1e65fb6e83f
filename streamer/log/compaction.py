"""Which part of a partition is compacted, and when it is worth it. Decides; nothing is read
but what segments know of themselves.

    log start      first dirty           end                   last stable      end of log
        |  clean       |      dirty       |    not yet               |   in flux    |

Cleaned is what lies before `end`: whole segments, none that is written to, nothing at or
behind the last stable offset, nothing younger than `min.compaction.lag.ms`, and nothing
that a start after a crash would read again. The dirty part holds the keys; both parts lose
what the dirty part supersedes.

It is worth it when more than `min.cleanable.dirty.ratio` is dirty, or when something
dirty is older than `max.compaction.lag.ms`.

It has time, and takes a small share of a processor, since those who produce and fetch have
not. Only what is overdue is in a hurry, and everything is while cleaning falls behind what
is written.

Which records stay: `compaction_rules.py`; from file to file: `compaction_files.py`; into
their place: `swap.py`; in a process of its own: `compaction_process.py`, which
`broker/cleaner.py` starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from streamer.log.config import FOREVER, LogConfig


class Stretch(Protocol):
    """What is asked of a segment."""

    @property
    def base_offset(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def first_timestamp(self) -> int: ...

    def know_timestamps(self) -> None: ...

    def age_from(self) -> int: ...


class Limits(NamedTuple):
    """What no cleaning goes beyond."""

    log_start: int
    last_stable: int
    recovery_point: int
    end: int


class Cleanable(NamedTuple):
    first_dirty: int
    end: int
    """Where the first segment begins that is left alone."""
    clean_bytes: int
    dirty_bytes: int
    overdue: bool
    """Whether something has been dirty for too long."""

    @property
    def ratio(self) -> float:
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0


def cleanable(
    row: Sequence[Stretch],
    config: LogConfig,
    limits: Limits,
    *,
    cleaned_to: int | None,
    now_ms: int,
) -> Cleanable:
    """What may be cleaned of the segments in `row`, where all before `cleaned_to` is."""
    dirty = _first_dirty(limits, cleaned_to)
    number = _first_left_alone(row, config, limits, dirty, now_ms)
    end = row[number].base_offset
    holding = _holding(row[: number + 1], dirty)
    clean = row[: number - len(holding)]
    return Cleanable(
        dirty,
        end,
        sum([one.size for one in clean]),
        sum([one.size for one in holding]),
        _is_overdue(holding, config, now_ms),
    )


def is_worth_it(found: Cleanable, config: LogConfig) -> bool:
    if found.end <= found.first_dirty:
        return False
    return found.overdue or found.ratio > config.min_cleanable_dirty_ratio


UNHURRIED_SHARE = 0.2


def share_of_processor(found: Cleanable, waiting: int, before: int | None) -> float:
    """How much of a processor a cleaning may take.

    `waiting` are the dirty bytes of all partitions that are worth it, and `before` what
    they were as the cleaning before this one began, if there was one: if they have become
    more, that one was too slow.
    """
    is_behind = before is not None and waiting > before
    return 1.0 if found.overdue or is_behind else UNHURRIED_SHARE


def _first_dirty(limits: Limits, cleaned_to: int | None) -> int:
    if cleaned_to is None or not limits.log_start <= cleaned_to <= limits.end:
        return limits.log_start
    return cleaned_to


def _first_left_alone(
    row: Sequence[Stretch], config: LogConfig, limits: Limits, dirty: int, now_ms: int
) -> int:
    """Its number; the last segment is always left alone."""
    safe = min(limits.last_stable, limits.recovery_point)
    for number in range(len(row) - 1):
        following = row[number + 1].base_offset
        if following > safe or (
            following > dirty and _is_young(row[number], config, now_ms)
        ):
            return number
    return len(row) - 1


def _is_young(segment: Stretch, config: LogConfig, now_ms: int) -> bool:
    lag = config.min_compaction_lag_ms
    return lag > 0 and segment.age_from() > now_ms - lag


def _holding(row: Sequence[Stretch], dirty: int) -> list[Stretch]:
    """The segments with something dirty in them; the last in `row` only ends the others."""
    return [one for one, following in pairwise(row) if following.base_offset > dirty]


def _is_overdue(dirty: Sequence[Stretch], config: LogConfig, now_ms: int) -> bool:
    if config.max_compaction_lag_ms == FOREVER:
        return False
    for segment in dirty:
        segment.know_timestamps()
        if 0 < segment.first_timestamp < now_ms - config.max_compaction_lag_ms:
            return True
    return False
