from __future__ import annotations

from pathlib import Path

import click
import pytest

from streamer.cli.access import nearest_broker
from streamer.cli.options import Address, Duration, PartitionsType


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost", "localhost:9092"),
        ("localhost:1234", "localhost:1234"),
        ("kafka://broker", "broker:9092"),
        ("kafka://a:1;b:2", "a:1,b:2"),
        ("a:1, b", "a:1,b:9092"),
        ("[::1]", "[::1]:9092"),
        ("[::1]:9", "[::1]:9"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written: str, meant: str) -> None:
    assert Address().convert(written, None, None) == meant


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("10", 10), ("1.5m", 90), ("2h", 7200)],
)
def test_a_duration_is_a_number_with_a_unit(written: str, seconds: float) -> None:
    assert Duration().convert(written, None, None) == seconds


@pytest.mark.parametrize("written", ["", "s", "ten", "10 s", "-1s", "10d"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(click.BadParameter, match="10s"):
        Duration().convert(written, None, None)


@pytest.mark.parametrize(
    ("written", "meant"), [("orders", ("orders", None)), ("a.b_c-d:12", ("a.b_c-d", 12))]
)
def test_a_topic_may_be_followed_by_a_partition(
    written: str, meant: tuple[str, int | None]
) -> None:
    assert PartitionsType().convert(written, None, None) == meant


@pytest.mark.parametrize("written", ["", ":1", "orders:", "orders:x", "orders:-1"])
def test_what_is_no_partition_is_refused(written: str) -> None:
    with pytest.raises(click.BadParameter):
        PartitionsType().convert(written, None, None)


def test_without_a_broker_of_apps_it_is_kafkas_usual_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path))

    assert nearest_broker() == "127.0.0.1:9092"
