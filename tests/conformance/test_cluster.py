"""What a client learns about the cluster: who is in it, and who leads."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient
from support.clients import DEADLINE_SECONDS, result
from support.server import Server


def test_the_cluster_is_one_broker_that_is_its_own_controller(
    admin: AdminClient, server: Server
) -> None:
    cluster = result(admin.describe_cluster())

    (node,) = cluster.nodes
    assert (node.host, node.port) == server.host_and_port
    assert cluster.controller.id == node.id
    assert len(cluster.cluster_id) == 22


def test_metadata_and_the_description_agree(admin: AdminClient) -> None:
    cluster = result(admin.describe_cluster())
    metadata = admin.list_topics(timeout=DEADLINE_SECONDS)

    assert metadata.cluster_id == cluster.cluster_id
    assert metadata.controller_id in metadata.brokers
    assert list(metadata.brokers) == [node.id for node in cluster.nodes]
