"""The same by hand: a loop over confluent-kafka, orjson and rocksdict.

    python -m benchmarks.workloads.loop '{"workload": "count", ...}'

It promises what the framework promises: at least once, records are delivered and changes
are in the changelog before positions are committed; exactly once, all of it is one
transaction. Its settings are those of `streamer/client/librdkafka.py` and `clients.py`.
What a count has in memory is a dict in front of RocksDB; a commit writes one changelog
record for each key that has changed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol, cast

import orjson
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from rocksdict import Options, Rdict, WriteBatch

from benchmarks.workloads.meter import Meter, digest, peak_mebibytes, say
from benchmarks.workloads.sampler import Sampler

BATCH, WAIT_S = 1000, 0.05
PATIENCE_S = 30.0
WINDOW_MS = 10_000
HANDLER_S, AT_ONCE = 0.05, 500
POSITION = b"\0position"

Task = dict[str, Any]


class Work(Protocol):
    """What the loop does with records."""

    def assigned(self, numbers: list[int]) -> None: ...

    def handle(self, messages: list[Any]) -> None: ...

    def before_commit(self) -> None: ...

    def after_commit(self) -> None: ...


class Loop:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.exactly_once = task["guarantee"] == "exactly_once"
        self.consumer = Consumer(
            {
                "bootstrap.servers": task["bootstrap"],
                "group.id": task["id"],
                "group.instance.id": f"{task['id']}-0",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 1000,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 2,
                "queued.min.messages": 300_000,
            }
        )
        settings = {
            "bootstrap.servers": task["bootstrap"],
            "linger.ms": task["linger_ms"],
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
            # Successes are of interest for changelogs only, and cost as much as records.
            "delivery.report.only.error": task["workload"] in ("map", "wait"),
        }
        if self.exactly_once:
            settings["transactional.id"] = task["id"]
        self.failures: list[KafkaError] = []
        self.producer = Producer(settings | {"on_delivery": self._delivered})
        if self.exactly_once:
            self.producer.init_transactions(PATIENCE_S)
            self.producer.begin_transaction()

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            self.failures.append(error)

    def produce(self, *record: Any) -> None:
        """Where the loops below find no room in the queue."""
        while True:
            try:
                return self.producer.produce(*record)
            except BufferError:
                self.producer.poll(0.01)

    def run(self, work: Work, meter: Meter) -> None:
        records, interval_s = self.task["records"], self.task["commit_ms"] / 1000

        def assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
            work.assigned([each.partition for each in partitions])
            say(partitions=len(partitions))

        consumer, producer = self.consumer, self.producer
        consumer.subscribe([self.task["input"]], on_assign=assigned)
        done = committed = 0
        due = time.monotonic() + interval_s
        while done < records:
            # `consume` waits for as many as it is asked for: so it waits for one.
            wait_s = min(WAIT_S, max(0.001, due - time.monotonic()))
            messages = consumer.consume(BATCH, 0) or consumer.consume(1, wait_s)
            if messages:
                for error in filter(None, map(Message.error, messages)):
                    raise KafkaException(error)
                work.handle(messages)
                done += len(messages)
                meter.mark(done)
            producer.poll(0)
            if time.monotonic() >= due:
                if done > committed:
                    self.commit(work)
                    committed = done
                due = time.monotonic() + interval_s
        if done > committed:
            self.commit(work)
        meter.end(done)

    def commit(self, work: Work) -> None:
        consumer, producer = self.consumer, self.producer
        work.before_commit()
        positions = [
            each for each in consumer.position(consumer.assignment()) if each.offset >= 0
        ]
        if self.exactly_once:
            membership = consumer.consumer_group_metadata()
            producer.send_offsets_to_transaction(positions, membership, PATIENCE_S)
            producer.commit_transaction(PATIENCE_S)
            producer.begin_transaction()
        else:
            if producer.flush(PATIENCE_S) or self.failures:
                raise TimeoutError(f"not delivered: {self.failures[:1]}")
            consumer.commit(offsets=positions, asynchronous=False)
        work.after_commit()

    def close(self) -> None:
        if self.exactly_once:
            self.producer.abort_transaction(PATIENCE_S)
        self.consumer.close()


class Map:
    """Read, decode, change a field, write."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._output = loop.task["output"]

    def assigned(self, numbers: list[int]) -> None:
        pass

    def handle(self, messages: list[Any]) -> None:
        produce, output = self._loop.producer.produce, self._output
        loads, dumps = orjson.loads, orjson.dumps
        for message in messages:
            click = loads(message.value())
            click["amount"] += 1
            value, key = dumps(click), message.key()
            try:
                produce(output, value, key)
            except BufferError:
                self._loop.produce(output, value, key)

    def before_commit(self) -> None:
        pass

    def after_commit(self) -> None:
        pass


class Wait(Map):
    """Handlers that await, so many at once."""

    def handle(self, messages: list[Any]) -> None:
        for first in range(0, len(messages), AT_ONCE):
            asyncio.run(self._together(messages[first : first + AT_ONCE]))

    async def _together(self, messages: list[Any]) -> None:
        await asyncio.gather(*map(self._one, messages))

    async def _one(self, message: Any) -> None:
        click = orjson.loads(message.value())
        await asyncio.sleep(HANDLER_S)
        self._loop.produce(self._output, orjson.dumps(click), message.key())


class Count:
    """Count by key: a dict in front of RocksDB, and a changelog."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._changelog = loop.task["changelog"]
        self.stores: dict[int, Rdict] = {}
        self.cached: dict[int, dict[Any, int]] = {}
        self._changed: dict[int, set[Any]] = {}
        self._written: dict[int, WriteBatch] = {}
        self._ends: dict[int, int] = {}
        self.processed: dict[int, float] = {}

    def assigned(self, numbers: list[int]) -> None:
        for number in numbers:
            path = Path(self._loop.task["directory"]) / str(number)
            path.mkdir(parents=True, exist_ok=True)
            options = Options(raw_mode=True)
            options.create_if_missing(True)
            self.stores[number] = Rdict(str(path), options)
            self.cached[number], self._changed[number] = {}, set()
        self._recover()

    def _recover(self) -> None:
        """Read of the changelog what the stores have not."""
        settings = {
            "bootstrap.servers": self._loop.task["bootstrap"],
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
            "queued.min.messages": 300_000,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        reader = Consumer(settings)
        ends, wanted = {}, []
        for number, store in self.stores.items():
            at = TopicPartition(self._changelog, number)
            start = int(store.get(POSITION) or 0)
            ends[number] = reader.get_watermark_offsets(at, timeout=PATIENCE_S)[1]
            if start < ends[number]:
                wanted.append(TopicPartition(self._changelog, number, start))
        found: dict[int, dict[bytes, bytes]] = {each.partition: {} for each in wanted}
        reader.assign(wanted)
        open_ends = len(wanted)
        while open_ends:
            messages: list[Any] = reader.consume(BATCH, 0) or reader.consume(1, WAIT_S)
            for message in messages:
                if error := message.error():
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    open_ends -= 1
                else:
                    found[message.partition()][message.key()] = message.value()
        reader.close()
        for number, values in found.items():
            batch = WriteBatch(raw_mode=True)
            for key, value in values.items():
                batch.put(key, value)
            batch.put(POSITION, b"%d" % ends[number])
            self.stores[number].write(batch)

    def handle(self, messages: list[Any]) -> None:
        loads, cached, changed = orjson.loads, self.cached, self._changed
        for message in messages:
            user = loads(message.value())["user"]
            number = message.partition()
            counts = cached[number]
            count = counts.get(user)
            if count is None:
                count = int(self.stores[number].get(user.encode()) or 0)
            counts[user] = count + 1
            changed[number].add(user)

    def before_commit(self) -> None:
        """The changelog has what changed; the stores will, once it is committed."""
        produce, changelog = self._loop.produce, self._changelog
        for number, keys in self._changed.items():
            if not keys:
                continue
            batch, counts = WriteBatch(raw_mode=True), self.cached[number]
            key = value = b""
            last = len(keys)
            for each in keys:
                last -= 1
                key, value = self.bytes_of(each), b"%d" % counts[each]
                batch.put(key, value)
                if last:
                    produce(changelog, value, key, number)
            produce(changelog, value, key, number, self._noted)
            keys.clear()
            self._written[number] = batch

    def bytes_of(self, key: Any) -> bytes:
        found: bytes = key.encode()
        return found

    def _noted(self, error: KafkaError | None, message: Any) -> None:
        self._loop._delivered(error, message)
        if error is None:
            self._ends[message.partition()] = message.offset() + 1

    def after_commit(self) -> None:
        for number, batch in self._written.items():
            batch.put(POSITION, b"%d" % self._ends[number])
            self.stores[number].write(batch)
        self._written.clear()

    def table(self) -> dict[str, Any]:
        return digest(
            (key.decode(), int(value))
            for store in self.stores.values()
            for key, value in cast(Any, store.items())
            if key != POSITION
        )

    def close(self) -> None:
        for store in self.stores.values():
            store.close()


class Recover(Count):
    """A count that notes when it began."""

    def handle(self, messages: list[Any]) -> None:
        super().handle(messages)
        for message in messages:
            self.processed.setdefault(message.partition(), time.monotonic())


class Window(Count):
    """Count by key and ten seconds of event time."""

    def handle(self, messages: list[Any]) -> None:
        loads, cached, changed = orjson.loads, self.cached, self._changed
        for message in messages:
            user = loads(message.value())["user"]
            number, moment = message.partition(), message.timestamp()[1]
            key = (user, moment - moment % WINDOW_MS)
            counts = cached[number]
            count = counts.get(key)
            if count is None:
                count = int(self.stores[number].get(self.bytes_of(key)) or 0)
            counts[key] = count + 1
            changed[number].add(key)

    def bytes_of(self, key: Any) -> bytes:
        return b"%s|%d" % (key[0].encode(), key[1])


WORKS: dict[str, type[Map] | type[Count]] = {
    "map": Map,
    "count": Count,
    "window": Window,
    "recover": Recover,
    "wait": Wait,
}


def main() -> None:
    task: Task = json.loads(sys.argv[1])
    meter, sampler = Meter(), Sampler()
    if task.get("profile"):
        sampler.start()
    loop = Loop(task)
    work = WORKS[task["workload"]](loop)
    loop.run(work, meter)
    sampler.stop()
    counted = work if isinstance(work, Count) else None
    table = counted.table() if counted and task["workload"] == "count" else None
    peak = peak_mebibytes()
    loop.close()
    if counted:
        counted.close()
    say(
        marks=meter.marks,
        peak=peak,
        table=table,
        processed=counted.processed if counted else None,
        profile=sampler.report() if task.get("profile") else None,
    )


if __name__ == "__main__":
    main()
