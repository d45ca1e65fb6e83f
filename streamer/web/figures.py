"""What a worker tells of itself in numbers: each with its name, meaning and labels.

What Kafka's exporters and Kafka Streams have a name for has that name here, so that boards
made for them work; the rest begins with `streamer_`. Counters count since the worker began,
and are called `NAME_total`.

`kafka_consumergroup_lag` is the end of a partition less what is committed, as exporters
compute it: markers of transactions count, so that an idle partition may show 1. The end is
what the last fetch told.

Not here: how long a record is processed. Nothing is measured for each record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from platform import python_version
from typing import NamedTuple

from streamer import __version__
from streamer.client.interface import TopicPartition
from streamer.web.view import Counted, Standing, View

THREAD = "kafka_streams_stream_thread_metrics"
TASK = "kafka_streams_stream_task_metrics"

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels, and the number."""


class Family(NamedTuple):
    name: str
    help: str
    labels: tuple[str, ...]
    samples: Samples
    counts: bool
    """Whether it only rises."""


class Figures:
    def __init__(self, view: View) -> None:
        self._view = view

    def __iter__(self) -> Iterator[Family]:
        standing = self._view.standing()
        yield from self._about()
        yield from self._done(self._view.counters, standing)
        yield from self._in_hand(standing)
        yield from self._partitions(standing)
        yield from self._state(standing)

    def _about(self) -> Iterator[Family]:
        view = self._view
        yield gauge(
            "streamer_build_info",
            "Which streamer this is, and what it runs.",
            ("version", "python", "app", "slot"),
            [((__version__, python_version(), view.app.id, view.slot_name), 1)],
        )
        yield one_gauge("streamer_ready", "Whether it works on its partitions.", view.ready)
        uptime_s = time.monotonic() - view.started_at
        yield one_gauge("streamer_uptime_seconds", "Since the worker began.", uptime_s)

    def _done(self, counters: Counted, standing: Standing) -> Iterator[Family]:
        thread = (self._view.slot_name,)
        by_thread = ("thread_id",)
        lately = counters.commits_lately
        done = sum(agent.taken - agent.in_hand for agent in standing.agents)
        dropped = sum(counters.dropped.values())
        yield counter(
            f"{THREAD}_process",
            "Records processed, by all agents.",
            by_thread,
            [(thread, done)],
        )
        yield counter(
            f"{THREAD}_commit",
            "Commits that had something.",
            by_thread,
            [(thread, counters.commits)],
        )
        yield gauge(
            f"{THREAD}_commit_latency_avg",
            "Milliseconds of a commit, of late.",
            by_thread,
            [(thread, 1000 * lately.average_s)],
        )
        yield gauge(
            f"{THREAD}_commit_latency_max",
            "The longest of late.",
            by_thread,
            [(thread, 1000 * lately.longest_s)],
        )
        yield counter(
            f"{TASK}_dropped_records",
            "Records that were left out: failed, late.",
            by_thread,
            [(thread, dropped + sum(counters.late.values()))],
        )
        yield counter(
            "streamer_records", "Records read.", ("topic",), by_name(counters.records)
        )
        yield one_counter("streamer_batches", "Batches read.", counters.batches)
        yield one_counter(
            "streamer_commit_seconds", "Spent on commits.", counters.commit_seconds
        )
        yield one_counter("streamer_aborts", "Transactions aborted.", counters.aborts)
        yield one_counter(
            "streamer_records_sent", "Records sent and committed.", counters.sent
        )
        yield one_counter(
            "streamer_changelog_records", "Changes of tables written.", counters.changes
        )
        yield counter(
            "streamer_agent_records",
            "Records done.",
            ("agent",),
            [((agent.name,), agent.taken - agent.in_hand) for agent in standing.agents],
        )
        yield counter(
            "streamer_agent_errors",
            "Times that a handler has raised.",
            ("agent",),
            by_name(counters.errors),
        )
        yield counter(
            "streamer_dropped_records",
            "Records put aside, and why.",
            ("agent", "reason"),
            counters.dropped.items(),
        )
        yield counter(
            "streamer_late_records",
            "Records whose window was over.",
            ("table",),
            by_name(counters.late),
        )
        yield one_counter(
            "streamer_rebalances", "Changes of assignment.", counters.rebalances
        )
        yield one_counter(
            "streamer_loop_stalls", "Times that the loop was held up.", counters.stalls
        )
        yield one_counter(
            "streamer_loop_stalled_seconds", "So long in all.", counters.stalled_seconds
        )

    def _in_hand(self, standing: Standing) -> Iterator[Family]:
        agents = standing.agents
        yield gauge(
            "streamer_records_waiting",
            "Records read that nobody has taken.",
            ("agent",),
            [((agent.name,), agent.waiting) for agent in agents],
        )
        yield gauge(
            "streamer_records_in_hand",
            "Records taken that are not done.",
            ("agent",),
            [((agent.name,), agent.in_hand) for agent in agents],
        )
        yield gauge(
            "streamer_oldest_record_age_seconds",
            "How long the oldest of them is in hand.",
            ("agent",),
            [((agent.name,), agent.oldest_s) for agent in agents],
        )
        yield gauge(
            "streamer_agent_stuck_seconds",
            "Since it last got on, if it has something to do.",
            ("agent",),
            [((agent.name,), agent.stuck_s) for agent in agents],
        )
        yield one_gauge(
            "streamer_staged_sends",
            "Sent, for the open transaction.",
            standing.staged_sends,
        )
        yield one_gauge(
            "streamer_producer_queue",
            "Records librdkafka has yet to deliver.",
            standing.queued,
        )

    def _partitions(self, standing: Standing) -> Iterator[Family]:
        group = self._view.app.conf.id
        by_place = ("topic", "partition")
        by_group = ("consumergroup", *by_place)
        marks, positions = standing.watermarks, standing.positions
        yield one_gauge(
            "streamer_assigned_partitions",
            "Partitions of topics that are here.",
            len(positions),
        )
        yield gauge(
            "kafka_consumergroup_lag",
            "Records that are not committed yet.",
            by_group,
            [
                ((group, *place(at)), max(0, marks[at][1] - position))
                for at, position in positions.items()
                if at in marks
            ],
        )
        yield gauge(
            "kafka_consumergroup_current_offset",
            "What is committed.",
            by_group,
            [((group, *place(at)), position) for at, position in positions.items()],
        )
        yield gauge(
            "kafka_topic_partition_current_offset",
            "The end.",
            by_place,
            [(place(at), high) for at, (_, high) in marks.items()],
        )
        yield gauge(
            "kafka_topic_partition_oldest_offset",
            "The first that is there.",
            by_place,
            [(place(at), low) for at, (low, _) in marks.items()],
        )

    def _state(self, standing: Standing) -> Iterator[Family]:
        by_place = ("table", "partition")
        changed = dict.fromkeys(sorted(self._view.app.tables), 0)
        for part in standing.tables:
            changed[part.name] += part.changed
        yield gauge(
            "streamer_changed_keys",
            "Keys whose change is not committed.",
            ("table",),
            by_name(changed),
        )
        yield gauge(
            "streamer_table_bytes",
            "The room a table takes, about.",
            by_place,
            [((one.name, str(one.partition)), one.size_bytes) for one in standing.tables],
        )
        yield gauge(
            "streamer_table_keys",
            "Keys of a table in memory.",
            by_place,
            [
                ((one.name, str(one.partition)), one.keys)
                for one in standing.tables
                if one.keys is not None
            ],
        )
        recovery = standing.recovery
        left = {} if recovery is None else recovery.left
        yield gauge(
            "streamer_recovery_remaining_records",
            "Of changelogs, yet to be read.",
            ("topic", "partition"),
            [(place(at), count) for at, count in left.items()],
        )
        yield one_gauge(
            "streamer_recovery_records_per_second",
            "How fast that goes.",
            0.0 if recovery is None else recovery.rate,
        )


def gauge(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family(name, help, labels, samples, counts=False)


def counter(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family(name, help, labels, samples, counts=True)


def one_gauge(name: str, help: str, number: float) -> Family:
    return gauge(name, help, (), [((), number)])


def one_counter(name: str, help: str, number: float) -> Family:
    return counter(name, help, (), [((), number)])


def by_name(numbers: Mapping[str, int]) -> Samples:
    return [((name,), number) for name, number in numbers.items()]


def place(at: TopicPartition) -> tuple[str, str]:
    return at.topic, str(at.partition)
