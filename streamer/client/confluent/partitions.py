"""Partitions, between librdkafka's names for them and ours."""

from collections.abc import Mapping
from typing import Any

import confluent_kafka

from streamer.client.interface import Position, TopicPartition


def plain(partition: Any) -> TopicPartition:
    """librdkafka's partition as ours."""
    return TopicPartition(partition.topic, partition.partition)


def librdkafkas(
    offsets: Mapping[TopicPartition, int],
) -> list[confluent_kafka.TopicPartition]:
    return [
        confluent_kafka.TopicPartition(topic, partition, offset)
        for (topic, partition), offset in offsets.items()
    ]


def with_notes(
    positions: Mapping[TopicPartition, Position],
) -> list[confluent_kafka.TopicPartition]:
    return [
        confluent_kafka.TopicPartition(topic, partition, offset, note)
        for (topic, partition), (offset, note) in positions.items()
    ]
