"""Every setting of librdkafka that is ours: the reason and, in brackets, its own default.

Callers may add their own, which win. librdkafka's log goes to the logger
`streamer.librdkafka`, which says nothing unless the program configures logging: what a
user must know comes as a `ClientError`.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Settings = Mapping[str, str | int | float | bool]

NOTHING: Settings = MappingProxyType({})

SETTINGS: dict[str, Settings] = {
    "all": {
        # So that the broker's log can say who it was.
        "client.id": "streamer",
        # Brokers hang up on the idle: no news. (true)
        "log.connection.close": False,
        # A broker that was restarted is found again in a second, not in ten. (10000)
        "reconnect.backoff.max.ms": 1000,
        # Whoever loses its last broker keeps looking for it. Starting over from the
        # addresses it was given can leave a transaction waiting for ever (librdkafka
        # issues 5456 and 5511). (rebootstrap)
        "metadata.recovery.strategy": "none",
    },
    "consumer": {
        # Must be set, even where no group is used.
        "group.id": "streamer",
        # It cannot know what is done; and storing offsets costs per record. (true, true)
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # To know when a partition has no more. (false)
        "enable.partition.eof": True,
        # Who reads more slowly than retention deletes goes on with the oldest that is
        # left, and does not jump over what there still is. (largest)
        "auto.offset.reset": "earliest",
        # A consumer whose queue was full once waits this long before it fetches again:
        # with the default it reaches an eighth of its rate. (1000)
        "fetch.queue.backoff.ms": 2,
        # What waits in memory takes three times the room of the records. (65536)
        "queued.max.messages.kbytes": 32_768,
        # How soon a member learns that others have come or gone. (3000)
        "heartbeat.interval.ms": 1000,
        # What was aborted never happened. (read_committed)
        "isolation.level": "read_committed",
    },
    "producer": {
        # A key goes to the partition that Java clients choose. librdkafka's own choice
        # agrees with theirs on a quarter of keys only. (consistent_random)
        "partitioner": "murmur2_random",
        # A retry writes nothing twice and keeps the order. (false)
        "enable.idempotence": True,
        # Fewer bytes to send, to keep and to read, for little CPU. (none)
        "compression.type": "lz4",
        # The broker decides what is too large, since its topics can be told. (1000000)
        "message.max.bytes": 100_000_000,
        # Reports of success cost as much as producing does; those of failure cost
        # nothing, and are needed: `flush` tells of no failure. (false)
        "delivery.report.only.error": True,
        # Small records fill the default before the network is busy; large ones must
        # not fill the memory. (100000, 1 GiB)
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
    },
    "admin": {},
}

# Idempotence needs all acknowledgements: who wants fewer gives it up.
WITHOUT_IDEMPOTENCE = {"0", "1"}

_logger = logging.getLogger("streamer.librdkafka")
_logger.addHandler(logging.NullHandler())


def settings_for(who: str, bootstrap: str, extra: Settings) -> dict[str, Any]:
    """librdkafka's configuration: ours from the table, then the caller's on top."""
    config: dict[str, Any] = {**SETTINGS["all"], **SETTINGS[who]}
    config |= extra
    if str(config.get("acks")) in WITHOUT_IDEMPOTENCE and "enable.idempotence" not in extra:
        config["enable.idempotence"] = False
    return config | {"bootstrap.servers": bootstrap, "logger": _logger}
