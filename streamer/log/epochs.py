"""Leader epochs: which offsets were written in which life of a partition.

On one node the leader never changes, but its log may lose its tail in a crash. Then the
epoch goes up by one, and a client that had read the lost records can tell: it asks where
its epoch ended, and learns that this is before its position.

Kept in Kafka's `leader-epoch-checkpoint`: a version, a count, lines of `epoch offset`.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

FILE_NAME = "leader-epoch-checkpoint"
FIRST = 0
UNDEFINED = -1


class EpochStart(NamedTuple):
    epoch: int
    offset: int


class EpochsDamaged(Exception):
    """Not what was written; the batches say the same."""


class Epochs:
    """A frozen list of epochs; changes give a new one, which the caller writes to disk."""

    __slots__ = ("starts",)

    def __init__(self, starts: list[EpochStart]) -> None:
        self.starts = starts

    @property
    def latest(self) -> int:
        return self.starts[-1].epoch if self.starts else FIRST

    def at(self, offset: int) -> int:
        """The epoch in which `offset` was written, or will be."""
        number = bisect_right(self.starts, offset, key=lambda start: start.offset) - 1
        return self.starts[number].epoch if number >= 0 else UNDEFINED

    def end(self, epoch: int, log_end: int) -> tuple[int, int]:
        """Where an epoch ended: the largest one not above it that was, and the start of
        the next. (-1, -1) for an epoch that has not begun."""
        if epoch == UNDEFINED or not self.starts:
            return UNDEFINED, UNDEFINED
        if epoch == self.latest:
            return epoch, log_end
        following = bisect_right(self.starts, epoch, key=lambda start: start.epoch)
        if following == len(self.starts):
            return UNDEFINED, UNDEFINED
        found = self.starts[following - 1].epoch if following else epoch
        return found, self.starts[following].offset

    def bumped(self, offset: int) -> Epochs:
        """A new epoch from `offset` on; what began behind it never was."""
        kept = [start for start in self.starts if start.offset < offset]
        return Epochs([*kept, EpochStart(self.latest + 1, offset)])

    def from_start(self, log_start: int) -> Epochs:
        """Without those that lie wholly before the log's start."""
        number = bisect_right(self.starts, log_start, key=lambda start: start.offset) - 1
        if number <= 0:
            return self
        first = EpochStart(self.starts[number].epoch, log_start)
        return Epochs([first, *self.starts[number + 1 :]])

    def write(self) -> bytes:
        lines = [f"{start.epoch} {start.offset}" for start in self.starts]
        return "\n".join(["0", str(len(lines)), *lines, ""]).encode()

    @classmethod
    def read(cls, data: bytes) -> Epochs:
        try:
            version, count, *lines = data.decode("ascii").splitlines()
            starts = [EpochStart(*map(int, line.split())) for line in lines]
        except (ValueError, TypeError) as error:
            raise EpochsDamaged(str(error)) from None
        rising = all(
            before.epoch < after.epoch and before.offset <= after.offset
            for before, after in pairwise(starts)
        )
        if version != "0" or count != str(len(starts)) or not rising:
            raise EpochsDamaged(f"version {version}, {count} lines, {starts}")
        return cls(starts)


def epochs_path(folder: Path) -> Path:
    return folder / FILE_NAME
