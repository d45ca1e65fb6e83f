"""The figures of groups, transactions and many partitions. See `figures.py`."""

from __future__ import annotations

import time
from functools import partial

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.contenders import (
    Client,
    create_topic,
    delete_topic,
    remove,
    resident_mebibytes,
)
from benchmarks.figures import Arena, Figure, Found, Row, percentile

TRANSACTIONS = 300
GROUPS, MEMBERS = 10, 10
SHARED_PARTITIONS = 12
EACH = 1_000
TOPICS, PARTITIONS_EACH = 1_000, 10
# Apache Kafka refuses to make 10,000 partitions at once: "excessively large batch".
TOPICS_AT_ONCE = 100
# Brokers with thousands of partitions are given time to make them.
CREATE_SECONDS = 600


def measure_transactions(arena: Arena, *, partitions: int) -> Found:
    topic = f"transact-{partitions}-{time.monotonic_ns()}"
    create_topic(arena.bootstrap, topic, partitions)
    found = Client(
        "transact",
        bootstrap=arena.bootstrap,
        topic=topic,
        partitions=partitions,
        transactions=TRANSACTIONS,
    ).run()
    delete_topic(arena.bootstrap, topic)
    return {"p50": percentile(found["took"], 0.5), "p99": percentile(found["took"], 0.99)}


def measure_read_committed(arena: Arena) -> Found:
    """The same topic, read both ways; a tenth of it was aborted."""
    topic = "transactional"
    if topic not in arena.filled:
        create_topic(arena.bootstrap, topic, 4)
        found = Client(
            "fill-transactionally",
            bootstrap=arena.bootstrap,
            topic=topic,
            records=arena.amounts.records // 2,
            each=EACH,
        ).run()
        arena.filled[topic] = found["committed"]
        arena.filled[f"{topic}, all"] = found["committed"] + found["aborted"]
    rates = {}
    for level, records in (
        ("read_uncommitted", arena.filled[f"{topic}, all"]),
        ("read_committed", arena.filled[topic]),
    ):
        found = Client(
            "consume",
            bootstrap=arena.bootstrap,
            topic=topic,
            records=records,
            isolation_level=level,
        ).run()
        rates[level] = arena.filled[f"{topic}, all"] / found["seconds"]
    return {
        "committed": rates["read_committed"],
        "uncommitted": rates["read_uncommitted"],
        "share": rates["read_committed"] / rates["read_uncommitted"],
    }


def measure_join(arena: Arena) -> Found:
    return in_groups(arena, "join", groups=GROUPS, members=MEMBERS)


def measure_rebalance(arena: Arena) -> Found:
    return in_groups(arena, "rebalance")


def in_groups(arena: Arena, load: str, **settings: int) -> Found:
    topic = f"{load}-{time.monotonic_ns()}"
    create_topic(arena.bootstrap, topic, SHARED_PARTITIONS)
    found = Client(
        load,
        bootstrap=arena.bootstrap,
        topic=topic,
        partitions=SHARED_PARTITIONS,
        **settings,
    ).run()
    delete_topic(arena.bootstrap, topic)
    return {"seconds": found["seconds"]}


def measure_many_partitions(arena: Arena) -> Found:
    """A broker of its own with a thousand topics, stopped and started again."""
    directory = arena.directory / "many"
    with arena.contender.start(directory) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        wanted = [
            NewTopic(f"topic-{number}", PARTITIONS_EACH, 1) for number in range(TOPICS)
        ]
        for at in range(0, TOPICS, TOPICS_AT_ONCE):
            made = admin.create_topics(
                wanted[at : at + TOPICS_AT_ONCE], request_timeout=CREATE_SECONDS
            )
            for one in made.values():
                one.result(CREATE_SECONDS)
    with arena.contender.start(directory) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        admin.list_topics(timeout=CREATE_SECONDS)
        asked = []
        for _ in range(5):
            started = time.monotonic()
            admin.list_topics(timeout=CREATE_SECONDS)
            asked.append(time.monotonic() - started)
        found = {
            "start": server.seconds_to_serve,
            "resident": resident_mebibytes(server),
            "metadata": percentile(asked, 0.5) * 1000,
        }
    remove(directory)
    return found


COORDINATION = (
    *(
        Figure(
            f"transactions-{partitions}",
            f"transaction over {partitions} partitions",
            partial(measure_transactions, partitions=partitions),
            (
                Row("p50", "ms, p50", "Kafka's" if partitions == 4 else ""),
                Row("p99", "ms, p99", "Kafka's" if partitions == 4 else ""),
            ),
            warm_up=True,
        )
        for partitions in (1, 4, 16, 64)
    ),
    Figure(
        "read-committed",
        "consume 100 B, a tenth aborted",
        measure_read_committed,
        (
            Row("committed", "records/s, read_committed", digits=0),
            Row("uncommitted", "records/s, read_uncommitted", digits=0),
            Row("share", "of read_uncommitted", "0.9"),
        ),
        warm_up=True,
    ),
    Figure(
        "join",
        f"{GROUPS} groups of {MEMBERS} members join",
        measure_join,
        (Row("seconds", "s", "2"),),
    ),
    Figure(
        "rebalance",
        "a third member joins",
        measure_rebalance,
        (Row("seconds", "s", "0.3"),),
    ),
    Figure(
        "many",
        "10,000 partitions",
        measure_many_partitions,
        (
            Row("start", "s to the first answer", "5"),
            Row("resident", "MiB resident", "300", digits=0),
            Row("metadata", "ms for the metadata of all", "100", digits=0),
        ),
    ),
)
