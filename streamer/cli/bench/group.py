"""`streamer bench group`: how soon the members of a group have their partitions.

All members join at once; when each has its share, one more comes, and the others give up
part of theirs. Each is a consumer of its own, polled by a thread of its own. They ask the
broker for news more often than clients usually do, so that it is the broker that is
measured. Apache Kafka waits three seconds for more members when the first joins a new
group (group.initial.rebalance.delay.ms); that wait is in its figure.
"""

import os
import threading
import time
from collections.abc import Callable

import click

from streamer.cli.access import Access
from streamer.cli.bench.common import STALLED_S, bench_options, bench_topic, show
from streamer.cli.output import Column, Row
from streamer.client.interface import ClientError, Consumer

POLL_S = 0.02
HEARTBEAT_MS = 50

COLUMNS = (
    Column("test", "test"),
    Column("members", "members"),
    Column("partitions", "partitions"),
    Column("join s", "join_seconds"),
    Column("one more s", "one_more_seconds"),
)


@click.command("group")
@click.option(
    "-m",
    "--members",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="That join at once.",
)
@bench_options
def group_command(
    access: Access, form: str, topic: str | None, partitions: int, members: int
) -> None:
    """Let members join a group, then one more, until all have partitions.

    \b
    Example: ten members, sixteen partitions
      streamer bench group -m 10 -p 16
    """
    from streamer.client.confluent.consumer import ConfluentConsumer

    name = f"streamer-bench-{os.getpid()}"
    admin = access.admin()
    with bench_topic(admin, topic, partitions) as where:
        if len(where) <= members:
            raise click.UsageError(
                f"{members} members and one more need {members + 1} partitions: -p N."
            )

        def new_member() -> Consumer:
            return ConfluentConsumer(
                access.bootstrap,
                {
                    **access.settings,
                    "group.id": name,
                    "heartbeat.interval.ms": HEARTBEAT_MS,
                },
            )

        crowd = Crowd(new_member, where[0].topic, len(where))
        try:
            row = joining(crowd, members)
        finally:
            crowd.leave()
        admin.delete_group(name)
    show([row], COLUMNS, form)


def joining(crowd: "Crowd", members: int) -> Row:
    started = time.perf_counter()
    for _ in range(members):
        crowd.add()
    crowd.wait_until_shared()
    joined = time.perf_counter()
    crowd.add()
    crowd.wait_until_shared()
    return {
        "test": "group",
        "members": members,
        "partitions": crowd.partitions,
        "join_seconds": round(joined - started, 3),
        "one_more_seconds": round(time.perf_counter() - joined, 3),
    }


class Crowd:
    """Members of one group, each in a thread of its own."""

    def __init__(
        self, new_member: Callable[[], Consumer], topic: str, partitions: int
    ) -> None:
        self.partitions = partitions
        self._new_member, self._topic = new_member, topic
        self._shares: list[int] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopped = threading.Event()

    def add(self) -> None:
        self._shares.append(0)
        thread = threading.Thread(target=self._take_part, args=(len(self._shares) - 1,))
        self._threads.append(thread)
        thread.start()

    def wait_until_shared(self) -> None:
        """Until every partition has one who reads it, and everybody one to read."""

        def shared() -> bool:
            return all(self._shares) and sum(self._shares) == self.partitions

        with self._changed:
            if not self._changed.wait_for(shared, STALLED_S):
                raise ClientError(
                    f"The {len(self._shares)} members did not agree in {STALLED_S:.0f} s."
                )

    def leave(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _take_part(self, number: int) -> None:
        member = self._new_member()
        member.subscribe([self._topic])
        while not self._stopped.is_set():
            member.consume(1, POLL_S)
            share = len(member.assigned() or ())
            if share != self._shares[number]:
                with self._changed:
                    self._shares[number] = share
                    self._changed.notify_all()
        member.close()
