"""Whether a client's batch is appended. Decides; the partition appends.

    the batch itself            `wire/batch.py`: format, size, checksum, timestamps
    its keys                    here, for compacted topics: the one rule that opens a batch
    its producer's sequence,    `producers.py`
    epoch and transaction

What is in order goes through all of them on headers alone, but for the keys.
"""

from __future__ import annotations

from streamer.log.config import LogConfig
from streamer.log.errors import Refused
from streamer.log.producers import Producers, Sent, Verify, judge
from streamer.wire.batch import Buffer, Fault, Header, Limits, check
from streamer.wire.error_codes import ErrorCode
from streamer.wire.record import CorruptRecords, read_records

WITHOUT_KEY = "A compacted topic takes no record without a key."


def limits_of(config: LogConfig) -> Limits:
    return Limits(
        config.max_message_bytes,
        config.segment_bytes,
        config.message_timestamp_type == "LogAppendTime",
        config.message_timestamp_before_max_ms,
        config.message_timestamp_after_max_ms,
    )


def accept(
    records: Buffer,
    limits: Limits,
    producers: Producers,
    *,
    compact: bool,
    produce_version: int,
    verify: Verify,
    now_ms: int,
) -> Header | Sent:
    """The header of a batch to append, or where it was put before. Raises Refused."""
    header = check(records, limits, produce_version=produce_version, now_ms=now_ms)
    if isinstance(header, Fault):
        raise Refused(header.code, header.message)
    if compact:
        check_keys(records)
    if header.producer_id < 0:
        return header
    state = producers.get(header.producer_id)
    verdict = judge(state, header, verify)
    if isinstance(verdict, Fault):
        raise Refused(verdict.code, verdict.message)
    return verdict or header


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
