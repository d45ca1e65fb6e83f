"""What the batches say about those who wrote them.

Snapshots and lists of aborted transactions spare a start the reading; where one of them is
missing, damaged or too old, the batches know it all. Data batches are told by their headers
alone, only markers are read whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamer.log.disk import Disk
from streamer.log.errors import CorruptLog
from streamer.log.producers import FinishedTransaction, Producers, SnapshotDamaged
from streamer.log.segment import SNAPSHOT, Segment, SegmentView, file_name, locate
from streamer.log.transactions import Aborted, TransactionIndexDamaged
from streamer.wire.batch import Buffer, Header, read_marker


def number_of(segments: Sequence[Segment], offset: int) -> int:
    """The segment that would hold `offset`, -1 if all begin behind it."""
    return bisect_right(segments, offset, key=lambda segment: segment.base_offset) - 1


def producers_at(
    disk: Disk,
    folder: Path,
    segments: Sequence[Segment],
    snapshots: list[int],
    offset: int,
    now_ms: int,
) -> tuple[Producers, list[int]]:
    """Who had written what is below `offset`, and which snapshots turned out damaged."""
    damaged: list[int] = []
    for number in reversed([each for each in snapshots if each <= offset]):
        try:
            data = disk.read_file(folder / file_name(number, SNAPSHOT))
            producers = Producers.restore(data)
        except SnapshotDamaged:
            damaged.append(number)
            continue
        replay_range(segments, producers, number, offset, now_ms)
        return producers, damaged
    producers = Producers()
    replay_range(segments, producers, segments[0].base_offset, offset, now_ms)
    return producers, damaged


def replay(
    producers: Producers, header: Header, batch: Buffer, now_ms: int
) -> FinishedTransaction | None:
    """Note a batch from the log; the transaction that it ended, if it did."""
    if header.producer_id < 0:
        return None
    if not header.is_control:
        producers.accept(header, header.base_offset, now_ms)
        return None
    marker = read_marker(batch)
    return marker and producers.finish(header, marker, header.base_offset, now_ms)


def note_aborted(
    segment: Segment, producers: Producers, finished: FinishedTransaction | None
) -> None:
    if finished is None or finished.commit:
        return
    still_open = producers.first_open_transaction
    last_stable = finished.last_offset + 1 if still_open is None else still_open
    segment.aborted.append(
        Aborted(
            finished.producer_id, finished.first_offset, finished.last_offset, last_stable
        )
    )


def replay_range(
    segments: Sequence[Segment], producers: Producers, start: int, end: int, now_ms: int
) -> None:
    """Bring producers known at `start` up to `end`, from headers alone."""
    for number in range(max(0, number_of(segments, start)), len(segments)):
        segment = segments[number]
        if start >= end or segment.base_offset >= end:
            return
        try:
            for _ in _replay_segment(segment.view(), producers, start, end, now_ms):
                pass
        except CorruptLog:
            # Reading will say so; the next file is found without this one.
            continue


def _replay_segment(
    view: SegmentView, producers: Producers, start: int, end: int, now_ms: int
) -> Iterator[FinishedTransaction]:
    """Bring producers up to date, and tell the transactions that ended on the way."""
    first = 0
    if start > view.base_offset:
        located = locate(view, start, gaps=True)
        if located is None:
            return
        first = located.position
    for position, header in view.walk(first):
        if header.base_offset >= end:
            break
        if header.producer_id < 0 or header.base_offset < start:
            continue
        batch = view.read(position, header.size) if header.is_control else b""
        if (ended := replay(producers, header, batch, now_ms)) is not None:
            yield ended


def read_aborted_of(
    disk: Disk, segments: Sequence[Segment], number: int, end: int
) -> list[Aborted]:
    """A segment's aborted transactions below `end`."""
    try:
        listed = segments[number].aborted.read()
    except TransactionIndexDamaged:
        return _rebuild_aborted(disk, segments, number, end)
    return [entry for entry in listed if entry.last_offset < end]


def _rebuild_aborted(
    disk: Disk, segments: Sequence[Segment], number: int, end: int
) -> list[Aborted]:
    segment = segments[number]
    producers = Producers()
    try:
        # Taken when the segment began.
        producers = Producers.restore(disk.read_file(segment.path.with_suffix(SNAPSHOT)))
    except (SnapshotDamaged, FileNotFoundError):
        replay_range(
            segments, producers, segments[0].base_offset, segment.base_offset, now_ms=0
        )
    view = segment.view()
    rebuilt: list[Aborted] = []
    try:
        for ended in _replay_segment(view, producers, segment.base_offset, end, now_ms=0):
            if not ended.commit:
                producer_id, first, last, _ = ended
                rebuilt.append(Aborted(producer_id, first, last, last + 1))
    except CorruptLog:
        pass  # A tail that is torn, most likely. What lies before it counts.
    return rebuilt
