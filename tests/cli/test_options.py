from __future__ import annotations

import pytest

from streamer.cli.options import Address


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
