"""`streamer cluster`: which broker answers, what it is, and how full its disk is."""

from collections.abc import Sequence
from typing import Any

import click

from streamer.cli.access import Access, pass_access
from streamer.cli.output import Column, Row, output_option, show_json, show_rows
from streamer.client.interface import Broker, Cluster
from streamer.client.librdkafka import Settings

COLUMNS = (
    Column("broker", "id"),
    Column("address", "address"),
    Column("software", "software"),
    Column("log dir", "log_dir"),
    Column("partitions", "partitions"),
    Column("MB", "bytes", scale=1e6),
    Column("free MB", "free_bytes", scale=1e6),
    Column("controller", "controller", wide=True),
    Column("apis", "apis", wide=True),
    Column("produce", "produce_version", wide=True),
    Column("fetch", "fetch_version", wide=True),
)

OUR_SETTING = "log.durability"
BROKER = 4  # a kind of resource that has configs

# The highest metadata.version that a release of Apache Kafka knows.
RELEASES = {
    1: "3.0", 2: "3.1", 3: "3.2", 7: "3.3", 8: "3.4", 11: "3.5", 14: "3.6",
    19: "3.7", 20: "3.8", 21: "3.9", 25: "4.0", 27: "4.1",
}  # fmt: skip


@click.command("cluster")
@output_option
@pass_access
def cluster_command(access: Access, form: str) -> None:
    """Show which cluster answers: its brokers, their software and log folders.

    \b
    Example: is this the broker that I mean?
      streamer cluster -b 127.0.0.1:9092
    """
    cluster = access.admin().cluster()
    brokers = [
        row
        for broker in cluster.brokers
        for row in broker_rows(broker, cluster, access.settings)
    ]
    partitions = sum(len(topic.partitions) for topic in cluster.topics)
    if form == "json":
        show_json(
            {
                "cluster_id": cluster.id,
                "controller": cluster.controller,
                "topics": len(cluster.topics),
                "partitions": partitions,
                "brokers": brokers,
            }
        )
        return
    click.echo(
        f"cluster {cluster.id}, {len(cluster.topics)} topics, {partitions} partitions\n"
    )
    show_rows(brokers, COLUMNS, form)


def broker_rows(broker: Broker, cluster: Cluster, settings: Settings) -> list[Row]:
    """One row for each log folder of the broker."""
    from streamer.cli.direct import Connection
    from streamer.wire.api_keys import ApiKey

    address = f"{broker.host}:{broker.port}"
    with Connection(address, settings) as connection:
        apis = {api.api_key: api for api in connection.api_versions.api_keys}
        row = {
            "id": broker.id,
            "address": address,
            "controller": broker.id == cluster.controller,
            "software": software(connection, broker.id),
            "apis": len(apis),
            "produce_version": apis[ApiKey.PRODUCE].max_version,
            "fetch_version": apis[ApiKey.FETCH].max_version,
        }
        return [row | folder for folder in log_dirs(connection)]


def log_dirs(connection: Any) -> Sequence[dict[str, object]]:
    """The broker's log folders: partitions, bytes in them, bytes free on their disks."""
    from streamer.cli.direct import check
    from streamer.wire.api_keys import ApiKey
    from streamer.wire.messages import DescribeLogDirsRequest

    response = connection.call(
        ApiKey.DESCRIBE_LOG_DIRS, DescribeLogDirsRequest(topics=None)
    )
    check(response.error_code, "Asking for log folders")
    found = []
    for folder in response.log_dirs:
        partitions = [each for topic in folder.topics for each in topic.partitions]
        free = folder.usable_bytes
        found.append(
            {
                "log_dir": folder.path,
                "partitions": len(partitions),
                "bytes": sum(each.size for each in partitions),
                "free_bytes": None if free < 0 else free,
            }
        )
    return found


def software(connection: Any, broker_id: int) -> str:
    """What the broker is. The protocol has no word for it, so it is told by its marks.

    Apache Kafka says which features it has; ours has none of those, but a setting that
    nobody else knows.
    """
    for feature in connection.api_versions.supported_features:
        if feature.name == "metadata.version":
            for highest, release in RELEASES.items():
                if feature.max_version <= highest:
                    return f"Apache Kafka {release}"
            return "Apache Kafka, a later one than 4.1"
    return "streamer" if knows_setting(connection, broker_id, OUR_SETTING) else "unknown"


def knows_setting(connection: Any, broker_id: int, name: str) -> bool:
    from streamer.wire.api_keys import ApiKey
    from streamer.wire.messages import DescribeConfigsRequest

    resource = DescribeConfigsRequest.Resource(
        resource_type=BROKER, resource_name=str(broker_id), configuration_keys=[name]
    )
    response = connection.call(
        ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest(resources=[resource])
    )
    return any(entry.name == name for each in response.resources for entry in each.configs)
