"""The one rule for which a batch must be opened before it is appended."""

from __future__ import annotations

from streamer.log.errors import Refused
from streamer.wire.batch import Buffer
from streamer.wire.error_codes import ErrorCode
from streamer.wire.record import CorruptRecords, read_records

WITHOUT_KEY = "A compacted topic takes no record without a key."


def check_keys(records: Buffer) -> None:
    """Compaction keeps the last record of each key, so each must have one."""
    try:
        missing = [
            number
            for number, record in enumerate(read_records(records))
            if record.key is None
        ]
    except CorruptRecords as error:
        raise Refused(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
    if missing:
        errors = tuple((number, WITHOUT_KEY) for number in missing)
        raise Refused(ErrorCode.INVALID_RECORD, WITHOUT_KEY, errors)
