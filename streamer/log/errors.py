"""What can go wrong in the log.

Those that answer one request are plain exceptions, which the broker turns into error
codes; those that a person must act on are `BrokerError`s with a way out.
"""

from __future__ import annotations

from pathlib import Path

from streamer.errors import BrokerError
from streamer.wire.error_codes import ErrorCode


class Refused(Exception):
    """A request, or one thing of many that it asks for, is not granted: the code and the
    words for its client.

    `record_errors` names the records at fault, as (number in the batch, why).
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        record_errors: tuple[tuple[int, str], ...] = (),
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.record_errors = record_errors


class OffsetOutOfRange(Exception):
    """A reader asked for an offset before the start or behind the end."""

    def __init__(self, offset: int, start: int, end: int) -> None:
        super().__init__(f"Offset {offset} is not within {start} to {end}.")
        self.offset = offset


class NotInMemory(Exception):
    """The read would have to wait for the disk, and was told not to."""


class CorruptLog(Exception):
    """What is on disk is not what was written; it is not served."""

    def __init__(self, path: Path, position: int, why: str) -> None:
        super().__init__(f"{path} at byte {position}: {why}")
        self.path = path
        self.position = position
        self.why = why


class LogDirectoryHeld(BrokerError):
    remedy = "Stop that broker, or give this one another --data-dir."


class LogDirectoryDamaged(BrokerError):
    remedy = "Restore the file from a backup; `streamer log verify DIR` shows what else is."


class JournalDamaged(BrokerError):
    remedy = (
        "Restore the file from a backup, or move it away to start without what it held;"
        " the partitions' own folders are untouched."
    )
