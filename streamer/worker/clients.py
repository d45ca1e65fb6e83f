"""The worker's clients of Kafka, each with the settings that the app asks for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.confluent.member import ConfluentMember
from streamer.client.confluent.producer import (
    ConfluentProducer,
    ConfluentTransactionalProducer,
)
from streamer.client.interface import Admin, Consumer, Member, Producer
from streamer.conf import EXACTLY_ONCE, Conf


class Clients:
    def __init__(self, address: str, conf: Conf) -> None:
        self.address = address
        self._conf = conf
        self._settings: dict[str, Any] = dict(conf.client_settings)

    @cached_property
    def admin(self) -> Admin:
        """One for all: it is asked by several threads, one question at a time."""
        return ConfluentAdmin(self.address, self._settings)

    def member(self, instance_id: str, client_id: str) -> Member:
        """The one that reads what the app processes."""
        conf = self._conf
        settings = {
            "client.id": client_id,
            "group.instance.id": instance_id,
            # Equal numbers of partitions of all topics come to the same member.
            "partition.assignment.strategy": "range",
            "session.timeout.ms": conf.session_timeout_ms,
            "max.poll.interval.ms": max(conf.max_poll_interval_ms, conf.session_timeout_ms),
            "auto.offset.reset": conf.auto_offset_reset,
        }
        return ConfluentMember(self.address, conf.id, {**self._settings, **settings})

    def producer(self, transactional_id: str) -> Producer:
        """The one that writes what the app has processed."""
        settings = self._at_leisure()
        if self._conf.guarantee != EXACTLY_ONCE:
            return ConfluentProducer(self.address, settings)
        settings["transaction.timeout.ms"] = self._conf.transaction_timeout_ms
        return ConfluentTransactionalProducer(
            self.address, transactional_id, settings, successes=True
        )

    def keeper(self) -> Producer:
        """Without transactions, the one that writes to changelogs."""
        return ConfluentProducer(self.address, self._at_leisure(), successes=True)

    def _at_leisure(self) -> dict[str, Any]:
        """For what is sent by many records and awaited by a commit."""
        return {
            **self._settings,
            "linger.ms": self._conf.linger_ms,
            "compression.type": self._conf.compression_type,
        }

    def plain_producer(self) -> Producer:
        """For what belongs to no record: it goes at once."""
        settings = {**self._settings, "linger.ms": 0}
        return ConfluentProducer(self.address, settings, successes=True)

    def consumer(self) -> Consumer:
        """For what is read without a group, as it comes: answers, global tables."""
        return ConfluentConsumer(self.address, self._settings)

    def catching_up(self) -> Consumer:
        """For what is read up to its end, and no further: changelogs."""
        # The end is told by a fetch that brings nothing, and somebody waits for it.
        settings = {**self._settings, "fetch.wait.max.ms": 10}
        return ConfluentConsumer(self.address, settings)
