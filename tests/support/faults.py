"""What the tests of faults share: requests by one line each, and narrow limits.

The requests go to a broker process (`Wire`) or to one in this process (`Client`); the
answers are boiled down to their error code, which is what these tests are about.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from support import batches
from support.raw import Wire, only_partition, produce_request

from streamer.wire.api_keys import ApiKey
from streamer.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    MetadataRequest,
)

TOPIC_RESOURCE, SET = 2, 0
PATIENCE_SECONDS = 15.0


def batch(*sizes: int) -> bytes:
    """One batch of records as large as this, of now."""
    values = [bytes([number % 256]) * size for number, size in enumerate(sizes, 1)]
    return batches.batch(values, timestamp=time.time_ns() // 1_000_000)


def limited(limits: str) -> list[str]:
    """To start a broker `under`: `ulimit` with these words."""
    return ["sh", "-c", f'ulimit {limits} && exec "$@"', "sh"]


def create(wire: Wire, name: str, partitions: int = 1, **configs: str) -> int:
    request = create_topic(name, partitions, **configs)
    return int(wire.ask(request, 5).topics[0].error_code)


def delete(wire: Wire, name: str) -> int:
    return int(wire.ask(delete_topic(name), 5).topics[0].error_code)


def create_topic(name: str, partitions: int = 1, **configs: str) -> Any:
    topic = CreateTopicsRequest.Topic(
        name=name,
        num_partitions=partitions,
        replication_factor=1,
        configs=[
            CreateTopicsRequest.Config(name=key.replace("_", "."), value=value)
            for key, value in configs.items()
        ],
    )
    return CreateTopicsRequest(topics=[topic], timeout_ms=5000)


def delete_topic(name: str) -> Any:
    return DeleteTopicsRequest(topic_names=[name], timeout_ms=5000)


def changes(topic: str) -> list[tuple[ApiKey, int, Any, Callable[[Any], int]]]:
    """Every request that writes something: key, version, request, code of its answer."""
    partition = DeleteRecordsRequest.Partition(index=0, offset=1)
    deletion = DeleteRecordsRequest.Topic(name=topic, partitions=[partition])
    config = IncrementalAlterConfigsRequest.Config(
        name="retention.ms", operation=SET, value="1000000"
    )
    resource = IncrementalAlterConfigsRequest.Resource(
        resource_type=TOPIC_RESOURCE, resource_name=topic, configs=[config]
    )
    addition = CreatePartitionsRequest.Topic(name=topic, count=3, assignments=None)
    return [
        (ApiKey.PRODUCE, 9, produce_request(topic, batch(5000)), partition_code),
        (ApiKey.CREATE_TOPICS, 5, create_topic("new"), topic_code),
        (
            ApiKey.INIT_PRODUCER_ID,
            2,
            InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000),
            lambda answer: int(answer.error_code),
        ),
        (
            ApiKey.INCREMENTAL_ALTER_CONFIGS,
            1,
            IncrementalAlterConfigsRequest(resources=[resource]),
            lambda answer: int(answer.resources[0].error_code),
        ),
        (
            ApiKey.CREATE_PARTITIONS,
            1,
            CreatePartitionsRequest(topics=[addition], timeout_ms=5000),
            topic_code,
        ),
        (
            ApiKey.DELETE_RECORDS,
            1,
            DeleteRecordsRequest(topics=[deletion], timeout_ms=5000),
            partition_code,
        ),
        (
            ApiKey.METADATA,
            5,
            MetadataRequest(topics=[MetadataRequest.Topic(name="created-by-asking")]),
            topic_code,
        ),
    ]


def topic_code(answer: Any) -> int:
    return int(answer.topics[0].error_code)


def partition_code(answer: Any) -> int:
    return int(only_partition(answer).error_code)


def eventually(condition: Callable[[], bool], problem: str) -> None:
    """Look again and again, since a process does things in its own time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
