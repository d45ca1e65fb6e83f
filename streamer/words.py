"""What others call settings: Faust's words, Kafka's other names, and what has no like here.

An app that was written for Faust keeps its `App(...)`: a word that means something is
translated, and one that does not is refused with what does its work here. None is dropped
in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamer.errors import SettingsError
from streamer.schedule import milliseconds

# Kafka's other names, wherever settings are written.
ALIASES = {
    "bootstrap.servers": "broker",
    "sasl.mechanisms": "sasl.mechanism",
    "errors.dead.letter.queue.topic.name": "dead.letter.topic",
    "datadir": "state.dir",
}

# Faust's word → our name, and what makes its value ours.
FAUST: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "broker_session_timeout": ("session.timeout.ms", milliseconds),
    "broker_max_poll_interval": ("max.poll.interval.ms", milliseconds),
    "broker_commit_interval": ("commit.interval.ms", milliseconds),
    "broker_commit_every": ("commit.changes.max", int),
    "commit_interval": ("commit.interval.ms", milliseconds),
    "consumer_auto_offset_reset": ("auto.offset.reset", str),
    "producer_linger": ("linger.ms", milliseconds),
    "producer_linger_ms": ("linger.ms", int),
    "producer_compression_type": ("compression.type", lambda name: name or "none"),
    "stream_buffer_maxsize": ("buffered.records.per.partition", int),
    "stream_processing_timeout": ("drain.timeout.ms", milliseconds),
    "datadir": ("state.dir", str),
    "topic_allow_declare": ("topic.allow.declare", bool),
    "default_partitions": ("topic.partitions", int),
    "replication_factor": ("topic.replication.factor", int),
    "url": ("broker", str),
    "bootstrap_servers": ("broker", str),
}

_NOT_NEEDED = "Leave it out: {}."

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("key_serializer", "value_serializer"),
        "Say it where the topic is declared: app.topic(..., value_serializer=...), or in"
        " the Record.",
    ),
    **dict.fromkeys(
        ("broker_consumer", "broker_producer"), "One cluster does both: broker=..."
    ),
    **dict.fromkeys(
        ("ssl_context", "web_ssl_context"),
        "Name the files: broker_credentials=streamer.SSLCredentials(cafile=...).",
    ),
    **dict.fromkeys(
        ("logging_config", "loghandlers"),
        "Configure `logging` in your own code, before app.main(): a worker that finds"
        " handlers leaves them alone.",
    ),
    **dict.fromkeys(
        ("autodiscover", "origin"),
        "Import the modules that declare agents in the one that -A names.",
    ),
    **dict.fromkeys(
        ("table_standby_replicas", "num_standby_replicas"),
        _NOT_NEEDED.format("there are no standbys; a worker restores from the changelog"),
    ),
    **dict.fromkeys(
        ("reply_create_topic", "create_reply_topic", "topic_disable_leader"),
        _NOT_NEEDED.format(
            "reply topics are made when somebody asks, a leader needs no topic"
        ),
    ),
    **dict.fromkeys(
        (
            *("broker_heartbeat_interval", "broker_rebalance_timeout"),
            *("broker_request_timeout", "producer_request_timeout"),
            "broker_commit_livelock_soft_timeout",
        ),
        _NOT_NEEDED.format(
            "heartbeats have a thread of their own; session_timeout_ms and"
            " max_poll_interval_ms bound the rest"
        ),
    ),
    **dict.fromkeys(
        (
            *("broker_api_version", "consumer_api_version", "producer_api_version"),
            *("broker_check_crcs", "consumer_metadata_max_age_ms"),
            *("consumer_connections_max_idle_ms", "producer_metadata_max_age_ms"),
            *("producer_connections_max_idle_ms", "producer_max_batch_size"),
            *("producer_max_request_size", "consumer_max_fetch_size"),
            *("producer_threaded", "producer_partitioner", "cython_optimizations"),
            *("stream_ack_cancelled_tasks", "stream_ack_exceptions"),
            *("stream_publish_on_commit", "stream_recovery_delay", "store_check_exists"),
            *("worker_redirect_stdouts", "worker_redirect_stdouts_level"),
            *("blocking_timeout", "agent_supervisor", "table_key_index_size"),
        ),
        _NOT_NEEDED.format("the client and the worker settle that by themselves"),
    ),
    "broker_client_id": _NOT_NEEDED.format("it tells where a worker's pages are"),
    "client_id": _NOT_NEEDED.format("it tells where a worker's pages are"),
    "broker_max_poll_records": "buffered_records_per_partition bounds what waits.",
    "consumer_group_instance_id": _NOT_NEEDED.format("a worker's slot gives it"),
    "producer_acks": _NOT_NEEDED.format("a record counts when all replicas have it"),
    "recovery_consistency_check": _NOT_NEEDED.format("state is always checked"),
    "stream_wait_empty": "drain_timeout_ms says how long handlers may take to finish.",
    "table_cleanup_interval": _NOT_NEEDED.format("windows go as event time passes"),
    "reply_to": _NOT_NEEDED.format("a worker's slot gives it"),
    "reply_to_prefix": _NOT_NEEDED.format("it is APP-replies"),
    "reply_expires": "Say it where you ask: agent.ask(..., timeout=30).",
    "id_format": "Write the id that you want: App('shop-v2').",
    "tabledir": "state_dir says where tables are kept.",
    "env_prefix": _NOT_NEEDED.format("variables begin with STREAMER_"),
    "debug": _NOT_NEEDED.format("a worker always serves its pages"),
    "cache": "Keep it in your own code: pages are plain async functions.",
    "web": _NOT_NEEDED.format("there is one web server"),
    "web_host": "web_bind is the address that pages are served at.",
    "canonical_url": "web_bind and web_port say where pages are served.",
    "web_transport": "web_bind and web_port say where pages are served.",
    "web_in_thread": _NOT_NEEDED.format("pages are served by the worker's loop"),
    "web_cors_options": "Serve pages that need it by a web framework: `async with app:`.",
    "monitor": "Figures are at /metrics.",
    "loop": "Run the app in your own loop: `async with app:`.",
    "config_source": "Settings come from App(...), STREAMER_..., streamer.toml [app].",
    "sasl.jaas.config": "Give sasl.username and sasl.password.",
    "ssl.truststore.location": "Give ssl.ca.location, a PEM file.",
    "ssl.keystore.location": "Give ssl.certificate.location and ssl.key.location, in PEM.",
    "application.id": "It is the first argument of App.",
    "group.id": "It is the first argument of App.",
    "num.stream.threads": "Start more processes: worker --processes N.",
}


def refuse(word: str, origin: str) -> None:
    """Raise if this is a word that is known and means nothing here."""
    remedy = REFUSED.get(word)
    if remedy is not None:
        raise SettingsError(f"{word} ({origin}) is no setting of streamer.", remedy=remedy)
