"""What is set, as users set it: flags, environment, streamer.toml; and what is refused.

A name that nobody knows, or a value that cannot be, stops the start: one clear message,
with the right name where one is near, and no traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.broker import STREAMER


def run(
    directory: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`streamer broker` in this folder, which must come to an end by itself."""
    clean = {name: value for name, value in os.environ.items() if "STREAMER" not in name}
    return subprocess.run(
        [str(STREAMER), "broker", *words],
        cwd=directory,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def settings(
    directory: Path, *words: str, **environment: str
) -> dict[str, tuple[str, str]]:
    """Name → (value, origin), as the broker would be started."""
    shown = run(directory, *words, "--show-config", "-o", "json", **environment)
    assert shown.returncode == 0, shown.stderr
    return {
        name: (one["value"], one["origin"])
        for name, one in json.loads(shown.stdout).items()
    }


def write_toml(directory: Path, text: str) -> None:
    (directory / "streamer.toml").write_text(text)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    tmp_path: Path,
) -> None:
    write_toml(
        tmp_path,
        '[broker]\n"log.retention.ms" = 1\nnum.partitions = 2\nmax.connections = 3\n',
    )

    found = settings(
        tmp_path,
        "--set",
        "log.retention.ms=7",
        STREAMER_LOG_RETENTION_MS="6",
        STREAMER_NUM_PARTITIONS="5",
    )

    assert found["log.retention.ms"] == ("7", "flag")
    assert found["num.partitions"] == ("5", "environment STREAMER_NUM_PARTITIONS")
    assert found["max.connections"] == ("3", str(tmp_path / "streamer.toml"))
    assert found["log.segment.bytes"] == ("1073741824", "default")


def test_the_table_shows_the_same_as_json(tmp_path: Path) -> None:
    write_toml(tmp_path, '[broker]\nlisteners = "PLAINTEXT://127.0.0.1:1"\n')

    table = run(tmp_path, "--show-config").stdout.splitlines()

    for name, (value, origin) in settings(tmp_path).items():
        (line,) = (line for line in table if line.split()[0] == name)
        assert line.removeprefix(name).strip() == f"{value}  ({origin})".strip()


REFUSED = [
    # What is said, and what may be meant.
    (["--set", "log.retention.hour=1"], "", {}, "'log.retention.hours'"),
    (["--set", "num.partitions=0"], "", {}, "at least 1"),
    (["--set", "num.partitions=many"], "", {}, "whole number"),
    (["--set", "log.durability=maybe"], "", {}, "fsync or page-cache"),
    (["--set", "auto.create.topics.enable=yes"], "", {}, "true or false"),
    (["--set", "log.cleanup.policy=forget"], "", {}, "log.cleanup.policy"),
    (["--set", "num.partitions"], "", {}, "NAME=VALUE"),
    (["--port", "70000"], "", {}, "PLAINTEXT://host:port"),
    (["--port", "some"], "", {}, "--port"),
    (["--host", "no.such.host.invalid", "--port", "0"], "", {}, "--host"),
    (["--port", "0", "--set", "listeners=PLAINTEXT://:0"], "", {}, "either"),
    ([], "[broker]\nnum.partition = 1", {}, "'num.partitions'"),
    ([], "[broker]\nnum.partitions = 'x'", {}, "streamer.toml"),
    ([], "[broker]\nnum.partitions = ", {}, "not valid TOML"),
    ([], "[brokre]\nnum.partitions = 1", {}, "[broker]"),
    ([], "num.partitions = 1", {}, "[broker]"),
    ([], "broker = 1", {}, "[broker]"),
    ([], "", {"STREAMER_LOG_RETENTION_HOUR": "1"}, "'STREAMER_LOG_RETENTION_HOURS'"),
    ([], "", {"STREAMER_NUM_PARTITIONS": ""}, "STREAMER_NUM_PARTITIONS"),
]


@pytest.mark.parametrize(("flags", "toml", "environment", "said"), REFUSED)
def test_what_cannot_be_stops_the_start_with_a_word_on_what_is_right(
    tmp_path: Path, flags: list[str], toml: str, environment: dict[str, str], said: str
) -> None:
    write_toml(tmp_path, toml)

    ended = run(tmp_path, *flags, **environment)

    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / ".streamer" / "broker" / "catalog.journal").exists() or (
        "--host" in flags
    )
