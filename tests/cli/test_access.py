"""Where a command takes it from which broker is meant and how to get in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

import streamer
from streamer.cli.access import Access, access_by
from streamer.cli.app.target import Target
from streamer.cli.main import main
from streamer.errors import SettingsError

TOML = """
[app]
broker = "kafka.example.com"
security.protocol = "SASL_SSL"
sasl.mechanism = "PLAIN"
sasl.username = "file"
client.rack = "a"
commit.interval.ms = 50
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path))
    return tmp_path


def access(
    bootstrap: str | None = None,
    flags: Mapping[str, str] | None = None,
    app: streamer.App | None = None,
) -> Access:
    return access_by(Target(app=app), bootstrap, flags or {})


def test_without_any_word_it_is_kafkas_usual_port_and_nothing_to_be_shown() -> None:
    assert access() == ("127.0.0.1:9092", {})


def test_the_strongest_place_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "streamer.toml").write_text(TOML)
    name, found = "sasl.username", []
    app = streamer.App("shop", sasl_username="code")

    found.append(access().settings[name])
    found.append(access(app=app).settings[name])
    monkeypatch.setenv("STREAMER_SASL_USERNAME", "environment")
    found.append(access(app=app).settings[name])
    found.append(access(flags={name: "flag"}, app=app).settings[name])

    assert found == ["file", "code", "environment", "flag"]


def test_the_file_names_the_broker_unless_somebody_else_does(folder: Path) -> None:
    (folder / "streamer.toml").write_text(TOML)

    assert access().bootstrap == "kafka.example.com:9092"
    assert access().settings["client.rack"] == "a"
    assert access("h:1").bootstrap == "h:1"
    assert access(app=streamer.App("shop", broker="kafka://a")).bootstrap == "a:9092"


def test_an_app_lets_commands_in_by_its_code() -> None:
    def token(config: str) -> tuple[str, float]:
        return "token", 0.0

    app = streamer.App(
        "shop", broker="h:1", broker_credentials=streamer.OAuthCredentials(oauth_cb=token)
    )

    given: object = access(app=app).settings["oauth_cb"]

    assert given is token


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("linger.ms", "security...., sasl...., ssl...."),
        ("sasl.pasword", "sasl.password"),
        ("ssl.truststore.location", "ssl.ca.location"),
    ],
)
def test_a_flag_that_means_nothing_to_a_command_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        access(flags={name: "x"})

    assert remedy in caught.value.remedy


def test_a_variable_that_nobody_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_SASL_PASWORD", "x")

    with pytest.raises(SettingsError, match="SASL_PASWORD"):
        access()


@pytest.mark.parametrize(
    "words", ["topic list", "produce", "consume", "txn list", "cluster"]
)
def test_help_teaches_how_to_get_in(words: str) -> None:
    shown = CliRunner().invoke(main, [*words.split(), "--help"]).output

    for word in ("--set", "security.protocol", "STREAMER_SASL_PASSWORD", "streamer.toml"):
        assert word in " ".join(shown.split())
