"""Settings of an app: under which names, from which places, and what is refused."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from streamer import OAuthCredentials, SASLCredentials, SSLCredentials
from streamer.broker.config import BROKER_OPTIONS
from streamer.conf import OPTIONS, Conf, load, shown
from streamer.errors import SettingsError
from streamer.words import ALIASES, FAUST, REFUSED


def conf(
    code: Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    toml: str = "",
    directory: Path = Path("/nowhere"),
    version: int = 1,
) -> Conf:
    if toml:
        (directory / "streamer.toml").write_text(toml)
    return load(
        "shop",
        version,
        code=code or {},
        flags=flags or {},
        environment=environment or {},
        directory=directory,
    )


def origin(found: Conf, name: str) -> str:
    return next(one.origin for one in found if one.option.name == name)


def test_the_strongest_place_counts(tmp_path: Path) -> None:
    name, toml = "linger.ms", "[app]\nlinger.ms = 4"
    places: list[dict[str, Any]] = [
        {"flags": {name: "1"}},
        {"environment": {"STREAMER_LINGER_MS": "2"}},
        {"code": {"linger_ms": 3}},
        {"toml": toml, "directory": tmp_path},
    ]
    found = []
    while places:
        given = {key: value for place in places for key, value in place.items()}
        here = conf(given.pop("code", None), **given)
        found.append((here.linger_ms, origin(here, name)))
        places.pop(0)

    assert found == [
        (1, "flag"),
        (2, "environment STREAMER_LINGER_MS"),
        (3, "App(...)"),
        (4, str(tmp_path / "streamer.toml")),
    ]
    assert origin(conf(), name) == "default"


def test_a_version_has_a_group_and_topics_of_its_own() -> None:
    assert (conf().id, conf(version=2).id) == ("shop", "shop-v2")


@pytest.mark.parametrize(
    "written",
    [
        "kafka://a:1;kafka://b:2/",
        ["kafka://a:1", "b:2"],
        "a:1, b:2",
        "kafka://a:1,b:2",
    ],
)
def test_brokers_may_be_written_in_several_ways(written: str | list[str]) -> None:
    assert conf({"broker": written}).brokers == "a:1,b:2"
    assert conf().brokers == ""


def test_a_broker_without_a_port_is_at_kafkas_usual_one() -> None:
    assert conf({"broker": "kafka://a;[::1];b:1"}).brokers == "a:9092,[::1]:9092,b:1"


class Guarantee(Enum):
    EXACTLY_ONCE = "exactly_once"


@pytest.mark.parametrize(
    ("word", "value", "name", "meant"),
    [
        ("broker_commit_interval", 2.8, "commit_interval_ms", 2800),
        ("broker_session_timeout", timedelta(seconds=7), "session_timeout_ms", 7000),
        ("producer_linger", 0, "linger_ms", 0),
        ("producer_compression_type", "gzip", "compression_type", "gzip"),
        ("stream_buffer_maxsize", 16, "buffered_records_per_partition", 16),
        ("datadir", Path("/data"), "state_dir", "/data"),
        ("topic_allow_declare", False, "topic_allow_declare", False),
        ("store", "memory://", "store", "memory://"),
        ("topic_partitions", 8, "topic_partitions", 8),
        ("web_port", 7000, "web_port", 7000),
        ("processing_guarantee", Guarantee.EXACTLY_ONCE, "guarantee", "exactly_once"),
        ("processing_guarantee", "exactly_once_v2", "guarantee", "exactly_once"),
        ("url", "kafka://h:1", "brokers", "h:1"),
    ],
)
def test_fausts_words_are_understood(
    word: str, value: object, name: str, meant: object
) -> None:
    assert getattr(conf({word: value}), name) == meant


def test_kafkas_other_names_are_understood_wherever_they_stand(tmp_path: Path) -> None:
    toml = "[app]\nbootstrap.servers = 'h:1'"

    assert conf(flags={"bootstrap.servers": "h:1"}).brokers == "h:1"
    assert conf(toml=toml, directory=tmp_path).brokers == "h:1"
    assert conf({"errors_dead_letter_queue_topic_name": "d"}).dead_letter_topic == "d"


@pytest.mark.parametrize("word", REFUSED)
def test_a_word_that_means_nothing_here_is_refused_with_what_does_its_work(
    word: str,
) -> None:
    with pytest.raises(SettingsError, match="is no setting of streamer") as caught:
        conf({word: 1})

    assert caught.value.remedy == REFUSED[word]


def test_no_word_is_both_refused_and_understood() -> None:
    understood = {*FAUST, *ALIASES, *OPTIONS, *(name.replace(".", "_") for name in OPTIONS)}

    assert not understood & REFUSED.keys()
    assert {name for name, _ in FAUST.values()} | {*ALIASES.values()} <= OPTIONS.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"code": {"linger_sm": 1}}, "Did you mean 'linger_ms'"),
        ({"code": {"broker_comit_interval": 1}}, "Did you mean 'broker_commit_interval'"),
        ({"flags": {"linger.m": "1"}}, "Did you mean 'linger.ms'"),
        ({"code": {"linger_ms": -1}}, "must be at least 0"),
        ({"code": {"store": "aerospike://"}}, "must be rocksdb or memory"),
        ({"code": {"broker_credentials": ssl.create_default_context()}}, "SASLCredentials"),
        ({"flags": {"ssl.truststore.location": "x"}}, "ssl.ca.location"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        conf(**given) if "code" not in given else conf(given["code"])

    assert said in str(caught.value)


# Shared with the broker.


def test_every_name_in_common_is_the_same_thing_or_told_apart() -> None:
    # A setting of this kind in both makes the environment ambiguous.
    assert BROKER_OPTIONS.keys() & OPTIONS.keys() == {"compression.type"}


@pytest.mark.parametrize("text", ["producer", "uncompressed"])
def test_a_word_that_only_the_broker_knows_is_none_of_ours(text: str) -> None:
    found = conf(environment={"STREAMER_COMPRESSION_TYPE": text})

    assert found.compression_type == "lz4"


# Credentials.


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (
            SASLCredentials(username="shop", password="sesame"),
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "shop",
                "sasl.password": "sesame",
            },
        ),
        (
            SASLCredentials(
                username="shop",
                password="sesame",
                mechanism="SCRAM-SHA-256",
                ssl=SSLCredentials(cafile="ca.pem"),
            ),
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-256",
                "sasl.username": "shop",
                "sasl.password": "sesame",
                "ssl.ca.location": "ca.pem",
            },
        ),
        (
            SSLCredentials(cadata="PEM", certfile="c", keyfile="k", password="p"),
            {
                "security.protocol": "SSL",
                "ssl.ca.pem": "PEM",
                "ssl.certificate.location": "c",
                "ssl.key.location": "k",
                "ssl.key.password": "p",
            },
        ),
        (
            OAuthCredentials(token_endpoint_url="https://t", client_id="shop"),
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": "https://t",
                "sasl.oauthbearer.client.id": "shop",
            },
        ),
    ],
)
def test_credentials_are_settings_of_every_client(
    credentials: Any, expected: dict[str, str]
) -> None:
    assert conf({"broker_credentials": credentials}).client_settings == expected


def test_a_function_that_gives_tokens_is_handed_on() -> None:
    def token(config: str) -> tuple[str, float]:
        return "token", 0.0

    found = conf({"broker_credentials": OAuthCredentials(oauth_cb=token)}).client_settings

    assert found["oauth_cb"] is token
    assert found["sasl.mechanism"] == "OAUTHBEARER"


def test_a_secret_may_come_from_the_environment_instead() -> None:
    found = conf(
        {"broker_credentials": SASLCredentials(username="shop", password="")},
        environment={"STREAMER_SASL_PASSWORD": "sesame"},
    )

    assert found.client_settings["sasl.password"] == "sesame"


def test_secrets_are_not_shown() -> None:
    credentials = SASLCredentials(
        username="shop", password="sesame", ssl=SSLCredentials(password="open")
    )
    found = conf({"broker_credentials": credentials, "sasl_oauthbearer_client_secret": "s"})
    texts = {one.option.name: shown(one) for one in found}

    assert texts["sasl.username"] == "shop"
    assert texts["sasl.password"] == texts["ssl.key.password"] == "********"
    assert texts["sasl.oauthbearer.client.secret"] == "********"
    assert "sesame" not in repr(credentials)
    assert "open" not in repr(credentials)


@pytest.mark.parametrize(
    "make",
    [
        lambda context: SSLCredentials(context),
        lambda context: SASLCredentials(username="", password="", ssl_context=context),
        lambda context: OAuthCredentials(
            oauth_cb=lambda _: ("token", 0.0), ssl_context=context
        ),
        lambda _: OAuthCredentials(),
        lambda _: OAuthCredentials(oauth_cb="token"),  # type: ignore[arg-type]
    ],
)
def test_credentials_that_the_client_cannot_use_are_refused(make: Any) -> None:
    with pytest.raises(SettingsError):
        make(ssl.create_default_context())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sasl.username": "shop"}, "security.protocol unset"),
        ({"ssl.ca.location": "ca.pem"}, "SASL_SSL for TLS and a name"),
        (
            {"security.protocol": "SSL", "sasl.username": "shop"},
            "with security.protocol SSL",
        ),
        (
            {"security.protocol": "SASL_PLAINTEXT", "ssl.ca.location": "ca.pem"},
            "counts for nothing",
        ),
        ({"security.protocol": "SASL_SSL", "sasl.username": "shop"}, "Set sasl.mechanism"),
    ],
)
def test_credentials_that_would_not_be_used_are_refused(
    given: dict[str, str], said: str
) -> None:
    found = conf(flags=given)

    with pytest.raises(SettingsError) as caught:
        _ = found.client_settings

    assert said in str(caught.value)


def test_plain_text_switches_off_what_the_code_says() -> None:
    credentials = SASLCredentials(username="shop", password="sesame", ssl=True)
    found = conf(
        {"broker_credentials": credentials},
        environment={"STREAMER_SECURITY_PROTOCOL": "PLAINTEXT"},
    )

    assert found.client_settings["security.protocol"] == "PLAINTEXT"


# The page about them.


def test_the_table_of_settings_stands_in_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    found = re.search(r"<!-- app settings: begin -->\n(.*?)\n?<!-- app", page, re.S)
    lines = ["| Setting | Default | What it does |", "|---|---|---|"]
    lines += [
        f"| `{option.name}` | {option.default or 'empty'} | {option.doc} |"
        for option in OPTIONS.values()
    ]
    expected = "\n".join(lines)

    assert found is not None
    assert found[1] == expected, f"put this into the page:\n{expected}"
