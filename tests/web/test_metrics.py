"""/metrics: names and labels as boards expect them, and numbers that are right."""

from __future__ import annotations

import asyncio
import sys

from support.apps import running, until
from support.pages import WebBench, get, labels, metrics

import streamer
from streamer.client.interface import TopicPartition


async def test_what_was_done_is_counted(bench: WebBench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out = app.topic(sink)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(app.topic(source), name="count", on_error="skip")
    async def count(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            if value == 3:
                raise RuntimeError("not this one")
            counts["all"] += 1
            await out.send(value=value)

    async with app:
        await bench.send(source, *range(10))
        await bench.outputs(sink, 9)
        await until(lambda: running(app).counters.sent == 9)
        found = await metrics(app)

    slot = labels(thread_id=f"{app.id}-0")
    assert found["streamer_records_total"] == {labels(topic=source): 10}
    assert found["kafka_streams_stream_thread_metrics_process_total"] == {slot: 10}
    assert found["kafka_streams_stream_thread_metrics_commit_total"][slot] >= 1
    assert found["kafka_streams_stream_thread_metrics_commit_latency_max"][slot] > 0
    assert found["kafka_streams_stream_task_metrics_dropped_records_total"] == {slot: 1}
    assert found["streamer_dropped_records_total"] == {
        labels(agent="count", reason="failed"): 1
    }
    assert found["streamer_agent_errors_total"] == {labels(agent="count"): 1}
    assert found["streamer_agent_records_total"] == {labels(agent="count"): 10}
    assert found["streamer_records_sent_total"] == {(): 9}
    assert found["streamer_changelog_records_total"][()] >= 1
    assert found["streamer_rebalances_total"][()] >= 1
    assert found["streamer_aborts_total"] == {(): 0}
    assert found["streamer_assigned_partitions"] == {(): 1}
    assert found["streamer_ready"] == {(): 1}
    if sys.platform == "linux":
        assert found["process_resident_memory_bytes"][()] > 0


async def test_what_waits_inside_the_worker_is_told(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()
    out = app.topic(await bench.topic())
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.agent(app.topic(source), name="hangs", concurrency=2)
    async def hangs(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            if value > 1:
                begun.set()
                await may_end.wait()
            counts[str(value)] += 1
            await out.send(value=value)

    async with app:
        await bench.send(source, *range(10))
        await begun.wait()
        place = TopicPartition(source, 0)
        at = labels(consumergroup=app.id, topic=source, partition="0")
        await until(lambda: running(app).standing().positions[place] == 2)
        # Nothing more is in hand than what its two actors hold.
        await until(lambda: running(app).standing().agents[0].in_hand == 2)
        # Where partitions end is looked at now and then.
        await until(lambda: running(app).standing().watermarks.get(place) == (0, 10))
        await asyncio.sleep(0.05)
        found = await metrics(app)

        assert found["streamer_records_in_hand"] == {labels(agent="hangs"): 2}
        assert found["streamer_records_waiting"] == {labels(agent="hangs"): 6}
        assert found["streamer_oldest_record_age_seconds"][labels(agent="hangs")] > 0.04
        assert found["kafka_consumergroup_lag"] == {at: 8}
        assert found["kafka_consumergroup_current_offset"] == {at: 2}
        assert found["kafka_topic_partition_current_offset"] == {
            labels(topic=source, partition="0"): 10
        }
        assert found["kafka_topic_partition_oldest_offset"] == {
            labels(topic=source, partition="0"): 0
        }
        assert found["streamer_staged_sends"] == {(): 0}
        assert found["streamer_producer_queue"] == {(): 0}
        assert found["streamer_changed_keys"] == {labels(table="counts"): 0}
        assert found["streamer_table_bytes"][labels(table="counts", partition="0")] > 0
        assert found["streamer_recovery_records_per_second"] == {(): 0}
        may_end.set()


async def test_effects_that_are_not_committed_yet_are_told(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app(commit_interval_ms=60_000, store="memory")
    out = app.topic(await bench.topic())
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.agent(app.topic(source), name="count")
    async def count(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            if value == 3:
                begun.set()
                await may_end.wait()
            counts[str(value)] += 1
            await out.send(value=value)

    async with app:
        await bench.send(source, 1, 2, 3)
        await begun.wait()
        found = await metrics(app)
        assert found["streamer_staged_sends"] == {(): 2}
        assert found["streamer_changed_keys"] == {labels(table="counts"): 2}
        assert found["streamer_table_keys"] == {labels(table="counts", partition="0"): 0}
        may_end.set()


async def test_a_worker_tells_what_it_is(bench: WebBench) -> None:
    app = bench.app()

    async with app:
        ((told, one),) = (await metrics(app))["streamer_build_info"].items()

    assert one == 1
    assert dict(told)["version"] == streamer.__version__
    assert dict(told)["app"] == app.id


async def test_a_scraper_that_wants_open_metrics_gets_them(bench: WebBench) -> None:
    app = bench.app()

    async with app:
        plain = await get(app, "/metrics")
        wanted = await get(app, "/metrics", accept="application/openmetrics-text")

    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert wanted.headers["content-type"].startswith("application/openmetrics-text")
    assert wanted.text.endswith("# EOF\n")
