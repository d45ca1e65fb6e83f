"""The table: API key → versions → handler.

This is all the broker serves, and all that it advertises. A handler is

    handler(request, call) → response | None | Waiting | awaitable of these

It may answer at once (most do), with a `Waiting` where it has to wait for a partition to
move, or with a coroutine where it has to wait for the disk. None is no answer at all: a
produce with acks=0.

Before this: `connection.py` cuts a connection into requests. After: one file a noun.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamer.broker.security import Session
from streamer.broker.waiting import Waiting
from streamer.wire.api_keys import ApiKey

if TYPE_CHECKING:
    from streamer.broker.core import Broker

Message = Any
Answer = Message | Waiting | None | Awaitable[Message | Waiting | None]


class CloseConnection(Exception):
    """The only way to tell this client that something went wrong."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler knows beside the request itself."""

    version: int
    session: Session
    broker: "Broker"
    client_id: str = ""
    """What the client calls itself in this request; it may be empty."""


Handler = Callable[[Message, Call], Answer]


@dataclass(frozen=True, slots=True)
class Api:
    key: ApiKey
    lowest: int
    highest: int
    handler: Handler
    # Produce is advertised from 0 though it is served from 3: librdkafka before 2.11
    # takes a higher minimum for a broker without compression (KAFKA-18659).
    advertised_lowest: int | None = None


class Table:
    """The served APIs, by key."""

    def __init__(self, *apis: Api) -> None:
        self._apis = {int(api.key): api for api in apis}

    def __iter__(self) -> Iterator[Api]:
        return iter(self._apis.values())

    def get(self, key: int) -> Api | None:
        return self._apis.get(key)


def table() -> Table:
    """All that is served. The versions are those that real clients were seen to need."""
    from streamer.broker import (
        administration,
        cluster,
        configs,
        fetch,
        metadata,
        offsets,
        produce,
        producer_ids,
        topics,
    )
    from streamer.broker.groups import commits, requests as groups
    from streamer.broker.transactions import requests as transactions

    return Table(
        Api(ApiKey.PRODUCE, 3, 11, produce.handle_produce, advertised_lowest=0),
        Api(ApiKey.FETCH, 4, 12, fetch.handle_fetch),
        Api(ApiKey.LIST_OFFSETS, 1, 8, offsets.handle_list_offsets),
        Api(ApiKey.METADATA, 0, 12, metadata.handle_metadata),
        Api(ApiKey.OFFSET_COMMIT, 2, 9, commits.handle_offset_commit),
        Api(ApiKey.OFFSET_FETCH, 1, 9, commits.handle_offset_fetch),
        Api(ApiKey.FIND_COORDINATOR, 0, 4, cluster.handle_find_coordinator),
        Api(ApiKey.JOIN_GROUP, 0, 9, groups.handle_join_group),
        Api(ApiKey.HEARTBEAT, 0, 4, groups.handle_heartbeat),
        Api(ApiKey.LEAVE_GROUP, 0, 5, groups.handle_leave_group),
        Api(ApiKey.SYNC_GROUP, 0, 5, groups.handle_sync_group),
        Api(ApiKey.DESCRIBE_GROUPS, 0, 5, groups.handle_describe_groups),
        Api(ApiKey.LIST_GROUPS, 0, 5, groups.handle_list_groups),
        Api(ApiKey.API_VERSIONS, 0, 4, cluster.handle_api_versions),
        Api(ApiKey.CREATE_TOPICS, 2, 7, topics.handle_create_topics),
        Api(ApiKey.DELETE_TOPICS, 1, 6, topics.handle_delete_topics),
        Api(ApiKey.DELETE_RECORDS, 0, 2, offsets.handle_delete_records),
        Api(ApiKey.INIT_PRODUCER_ID, 0, 5, producer_ids.handle_init_producer_id),
        Api(ApiKey.OFFSET_FOR_LEADER_EPOCH, 2, 4, offsets.handle_offset_for_leader_epoch),
        Api(ApiKey.ADD_PARTITIONS_TO_TXN, 0, 3, transactions.handle_add_partitions_to_txn),
        Api(ApiKey.ADD_OFFSETS_TO_TXN, 0, 4, transactions.handle_add_offsets_to_txn),
        Api(ApiKey.END_TXN, 0, 4, transactions.handle_end_txn),
        Api(ApiKey.WRITE_TXN_MARKERS, 1, 1, transactions.handle_write_txn_markers),
        Api(ApiKey.TXN_OFFSET_COMMIT, 0, 4, commits.handle_txn_offset_commit),
        Api(ApiKey.DESCRIBE_ACLS, 1, 3, administration.handle_describe_acls),
        Api(ApiKey.CREATE_ACLS, 1, 3, administration.handle_create_acls),
        Api(ApiKey.DELETE_ACLS, 1, 3, administration.handle_delete_acls),
        Api(ApiKey.DESCRIBE_CONFIGS, 1, 4, configs.handle_describe_configs),
        Api(ApiKey.ALTER_CONFIGS, 0, 2, configs.handle_alter_configs),
        Api(ApiKey.DESCRIBE_LOG_DIRS, 1, 4, cluster.handle_describe_log_dirs),
        Api(ApiKey.CREATE_PARTITIONS, 0, 3, topics.handle_create_partitions),
        Api(ApiKey.DELETE_GROUPS, 0, 2, groups.handle_delete_groups),
        Api(ApiKey.ELECT_LEADERS, 0, 2, administration.handle_elect_leaders),
        Api(
            ApiKey.INCREMENTAL_ALTER_CONFIGS, 0, 1, configs.handle_incremental_alter_configs
        ),
        Api(
            ApiKey.LIST_PARTITION_REASSIGNMENTS,
            0,
            0,
            administration.handle_list_partition_reassignments,
        ),
        Api(ApiKey.OFFSET_DELETE, 0, 0, commits.handle_offset_delete),
        Api(
            ApiKey.DESCRIBE_CLIENT_QUOTAS,
            0,
            1,
            administration.handle_describe_client_quotas,
        ),
        Api(
            ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS,
            0,
            0,
            administration.handle_describe_user_scram_credentials,
        ),
        Api(
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
            0,
            0,
            administration.handle_alter_user_scram_credentials,
        ),
        Api(ApiKey.DESCRIBE_CLUSTER, 0, 1, cluster.handle_describe_cluster),
        Api(ApiKey.DESCRIBE_PRODUCERS, 0, 0, transactions.handle_describe_producers),
        Api(ApiKey.DESCRIBE_TRANSACTIONS, 0, 0, transactions.handle_describe_transactions),
        Api(ApiKey.LIST_TRANSACTIONS, 0, 2, transactions.handle_list_transactions),
    )
