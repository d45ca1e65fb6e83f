"""A topic that is only sent to is made as it is declared, not as a broker would make it."""

from __future__ import annotations

import asyncio

from support.apps import Bench
from support.clients import new_name

import streamer
from streamer.client.confluent.admin import ConfluentAdmin


async def test_a_topic_that_no_agent_reads_has_the_settings_that_were_declared(
    bench: Bench,
) -> None:
    source, kept = await bench.topic(), new_name()
    app = bench.app()
    app.topic(kept, value_type=int, partitions=3, config={"retention.ms": -1})

    @app.agent(app.topic(source))
    async def nothing(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    async with app:
        pass

    admin = ConfluentAdmin(bench.address)
    topic = await asyncio.to_thread(admin.topic, kept)
    configs = await asyncio.to_thread(admin.topic_configs, kept)
    assert len(topic.partitions) == 3
    assert {one.name: one.value for one in configs}["retention.ms"] == "-1"
