"""Looking into the files of a log, ours or Kafka's, without opening it as a log.

`dump` tells a file line by line: `.log`, `.index`, `.timeindex`, `.txnindex`, `.snapshot`.
`verify` goes through a whole directory and holds each file against the batches. Both only
read, stop nowhere without saying why, and print nothing: they yield.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from streamer.errors import StreamerError
from streamer.log.disk import Disk
from streamer.log.epochs import FILE_NAME as EPOCHS_NAME, Epochs, EpochsDamaged
from streamer.log.errors import CorruptLog
from streamer.log.index import OFFSET_ENTRY, TIME_ENTRY
from streamer.log.producers import SnapshotDamaged, read_snapshot
from streamer.log.segment import (
    LOG,
    OFFSET_INDEX,
    SNAPSHOT,
    TIME_INDEX,
    walk_batches,
)
from streamer.log.transactions import (
    SUFFIX as TRANSACTION_INDEX,
    TransactionIndexDamaged,
    read_aborted,
)
from streamer.wire.batch import Header, crc_of, read_marker
from streamer.wire.compression import Compression
from streamer.wire.record import CorruptRecords, Record, read_records


class CannotDump(StreamerError):
    remedy = "It must end in .log, .index, .timeindex, .txnindex or .snapshot."


class Finding(NamedTuple):
    """What `verify` has to say about one file."""

    path: Path
    problem: str | None
    """None if the file is as it should be."""
    detail: str = ""
    position: int | None = None


def dump(disk: Disk, path: Path, *, deep: bool = False) -> Iterator[str]:
    """The file in words; with `deep` each record of each batch."""
    if path.suffix == LOG:
        return _dump_log(disk, path, deep)
    if path.suffix not in _DUMPS:
        raise CannotDump(f"{path.name} is no file of a partition's log.")
    return _DUMPS[path.suffix](disk, path)


def _dump_log(disk: Disk, path: Path, deep: bool) -> Iterator[str]:
    file = disk.open(path).pin()
    try:
        for position, header, batch in walk_batches(file, path, 0, file.size()):
            sound = crc_of(batch, header) == header.crc
            yield _batch_line(position, header, batch, sound)
            if deep and sound:
                yield from _record_lines(batch, header)
    except CorruptLog as error:
        yield f"! byte {error.position}: {error.why}"


def _batch_line(position: int, header: Header, batch: memoryview, sound: bool) -> str:
    words = [
        f"offset {header.base_offset}..{header.last_offset}",
        f"position {position}",
        f"size {header.size}",
        f"records {header.record_count}",
        _compression(header),
        f"epoch {header.leader_epoch}",
        ("appended " if header.is_append_time else "created ")
        + _time(header.max_timestamp),
    ]
    if header.producer_id >= 0:
        words.append(
            f"producer {header.producer_id} epoch {header.producer_epoch}"
            f" sequence {header.base_sequence}..{header.last_sequence}"
        )
    if header.is_transactional:
        words.append("transactional")
    if header.is_control:
        words.append(_marker_words(batch))
    words.append(f"crc {header.crc:08x}" + ("" if sound else " WRONG"))
    return "  ".join(words)


def _marker_words(batch: memoryview) -> str:
    marker = read_marker(batch)
    if marker is None:
        return "control"
    outcome = "commit" if marker.commit else "abort"
    return f"{outcome} by coordinator epoch {marker.coordinator_epoch}"


def _compression(header: Header) -> str:
    try:
        return Compression(header.compression).name.lower()
    except ValueError:
        return f"compression {header.compression}"


def _record_lines(batch: memoryview, header: Header) -> Iterator[str]:
    if header.is_control:
        return
    try:
        for record in read_records(batch):
            yield "  " + _record_line(record)
    except CorruptRecords as error:
        yield f"! records of offset {header.base_offset}: {error}"


def _record_line(record: Record) -> str:
    words = [
        f"offset {record.offset}",
        _time(record.timestamp),
        f"key {_text(record.key)}",
        f"value {_text(record.value)}",
    ]
    words.extend(f"header {name}={_text(value)}" for name, value in record.headers)
    return "  ".join(words)


def _text(data: bytes | None) -> str:
    return "null" if data is None else repr(data)[1:]


def _time(timestamp: int) -> str:
    if not 0 <= timestamp < 253_402_300_800_000:
        return str(timestamp)
    moment = datetime.fromtimestamp(timestamp / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _base_offset(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else 0


def _entries(disk: Disk, path: Path, layout: Struct) -> Iterator[tuple[int, int]]:
    """Up to the first zeros: Kafka makes index files larger than what is in them."""
    data = disk.read_file(path)
    usable = len(data) - len(data) % layout.size
    for number, (first, second) in enumerate(layout.iter_unpack(data[:usable])):
        if number and first == second == 0:
            return
        yield first, second


def _dump_offset_index(disk: Disk, path: Path) -> Iterator[str]:
    for relative, position in _entries(disk, path, OFFSET_ENTRY):
        yield f"offset {_base_offset(path) + relative}  position {position}"


def _dump_time_index(disk: Disk, path: Path) -> Iterator[str]:
    for timestamp, relative in _entries(disk, path, TIME_ENTRY):
        yield f"{_time(timestamp)}  offset {_base_offset(path) + relative}"


def _dump_transaction_index(disk: Disk, path: Path) -> Iterator[str]:
    try:
        for entry in read_aborted(disk.read_file(path)):
            yield (
                f"aborted  producer {entry.producer_id}"
                f"  offset {entry.first_offset}..{entry.last_offset}"
                f"  last stable offset then {entry.last_stable}"
            )
    except TransactionIndexDamaged as error:
        yield f"! {error}"


def _dump_snapshot(disk: Disk, path: Path) -> Iterator[str]:
    try:
        for row in read_snapshot(disk.read_file(path)):
            words = [f"producer {row.producer_id}", f"epoch {row.epoch}"]
            if (sent := row.sent) is not None:
                words.append(f"sequence {sent.first_sequence}..{sent.last_sequence}")
                words.append(f"offset {sent.base_offset}..{sent.last_offset}")
            if row.transaction_start >= 0:
                words.append(f"transaction open since offset {row.transaction_start}")
            words.append(f"coordinator epoch {row.coordinator_epoch}")
            yield "  ".join([*words, f"heard {_time(row.timestamp)}"])
    except SnapshotDamaged as error:
        yield f"! {error}"


_DUMPS: dict[str, Callable[[Disk, Path], Iterator[str]]] = {
    OFFSET_INDEX: _dump_offset_index,
    TIME_INDEX: _dump_time_index,
    TRANSACTION_INDEX: _dump_transaction_index,
    SNAPSHOT: _dump_snapshot,
}


# Verifying.


class _Seen(NamedTuple):
    """What indexes may point to in a segment."""

    positions: dict[int, int]
    """Where the batch with this last offset begins."""
    timestamps: dict[int, int]
    markers: dict[int, int]
    """Whose they are, by their offset."""


def verify(disk: Disk, path: Path) -> Iterator[Finding]:
    """Every file of every partition below `path`, or of `path` if it is a partition's."""
    names = sorted(disk.list(path))
    if any(name.endswith(LOG) for name in names):
        yield from _verify_partition(disk, path, names)
        return
    for name in names:
        folder = path / name
        if not name.endswith(("-delete", "-stray")) and _is_partition(disk, folder):
            yield from _verify_partition(disk, folder, sorted(disk.list(folder)))


def _is_partition(disk: Disk, folder: Path) -> bool:
    try:
        return any(name.endswith(LOG) for name in disk.list(folder))
    except (NotADirectoryError, FileNotFoundError):
        return False


def _verify_partition(disk: Disk, folder: Path, names: list[str]) -> Iterator[Finding]:
    next_offset = 0
    for name in names:
        path = folder / name
        try:
            if path.suffix == LOG:
                seen = _Seen({}, {}, {})
                finding, next_offset = _verify_log(disk, path, next_offset, seen)
                yield finding
                yield from _verify_indexes(disk, path, seen)
            elif path.suffix == SNAPSHOT:
                yield Finding(
                    path, None, f"{len(read_snapshot(disk.read_file(path)))} rows"
                )
            elif name == EPOCHS_NAME:
                epochs = Epochs.read(disk.read_file(path))
                yield Finding(path, None, f"epoch {epochs.latest}")
        except (SnapshotDamaged, EpochsDamaged, OSError) as error:
            yield Finding(path, str(error))


def _verify_log(
    disk: Disk, path: Path, next_offset: int, seen: _Seen
) -> tuple[Finding, int]:
    file = disk.open(path).pin()
    size = file.size()
    batches = records = 0
    try:
        for position, header, batch in walk_batches(file, path, 0, size):
            problem = _batch_problem(header, batch, next_offset)
            if problem is not None:
                return Finding(path, problem, position=position), next_offset
            next_offset = header.last_offset + 1
            batches, records = batches + 1, records + header.record_count
            seen.positions[header.last_offset] = position
            seen.timestamps[header.last_offset] = header.max_timestamp
            if header.is_control:
                seen.markers[header.base_offset] = header.producer_id
    except CorruptLog as error:
        return Finding(path, error.why, position=error.position), next_offset
    detail = f"{batches} batches, {records} records, {size} bytes, up to {next_offset}"
    return Finding(path, None, detail), next_offset


def _batch_problem(header: Header, batch: memoryview, next_offset: int) -> str | None:
    if header.base_offset < next_offset:
        return f"offset {header.base_offset} again, {next_offset} was next"
    if crc_of(batch, header) != header.crc:
        return "the batch does not match its checksum"
    if header.is_control:
        return None
    try:
        for _ in read_records(batch):
            pass
    except CorruptRecords as error:
        return str(error)
    return None


def _verify_indexes(disk: Disk, log: Path, seen: _Seen) -> Iterator[Finding]:
    base = _base_offset(log)
    path = log.with_suffix(OFFSET_INDEX)
    if disk.exists(path):
        offsets = list(_entries(disk, path, OFFSET_ENTRY))
        wrong = [
            relative
            for relative, position in offsets
            if seen.positions.get(base + relative) != position
        ]
        yield _index_finding(path, len(offsets), wrong)
    path = log.with_suffix(TIME_INDEX)
    if disk.exists(path):
        times = list(_entries(disk, path, TIME_ENTRY))
        wrong = [
            relative
            for timestamp, relative in times
            if seen.timestamps.get(base + relative) != timestamp
        ]
        yield _index_finding(path, len(times), wrong)
    path = log.with_suffix(TRANSACTION_INDEX)
    if disk.exists(path):
        try:
            aborted = read_aborted(disk.read_file(path))
        except TransactionIndexDamaged as error:
            yield Finding(path, str(error))
            return
        wrong = [
            one.last_offset
            for one in aborted
            if seen.markers.get(one.last_offset) != one.producer_id
        ]
        yield _index_finding(path, len(aborted), wrong)


def _index_finding(path: Path, count: int, wrong: list[int]) -> Finding:
    if wrong:
        return Finding(
            path, f"{len(wrong)} of {count} entries agree with no batch; it will be rebuilt"
        )
    return Finding(path, None, f"{count} entries")
