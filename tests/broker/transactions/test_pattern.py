"""Patterns for transactional ids: what they match, and what a hostile one cannot do."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from streamer.broker.transactions.pattern import CHARACTERS_MAX, InvalidPattern, matching

IDS = ["orders-1", "orders-2", "payments-1", "größe", ""]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("orders-1", {"orders-1"}),
        ("orders", set()),
        (".*-1", {"orders-1", "payments-1"}),
        ("(orders|payments)-[2-9]", {"orders-2"}),
        ("(?i)GRÖSSE|GRÖ.E", {"größe"}),
        ("", {""}),
    ],
)
def test_a_pattern_matches_whole_ids(pattern: str, found: set[str]) -> None:
    assert matching(pattern, IDS) == found


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "*", "(?=a)", r"\1"])
def test_what_re2_does_not_know_is_refused(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidPattern):
        matching(pattern, IDS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "pattern", ["a" * (CHARACTERS_MAX + 1), r"\pL{1000}", "x{0,1000}" * 111]
)
def test_what_asks_too_much_is_refused_at_once(pattern: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidPattern):
        matching(pattern, IDS)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("pattern", ["(a|aa)*b", "(a+a+)+b", "(a*)*b", "(.?){900}c"])
def test_a_hostile_pattern_takes_no_longer_than_another(pattern: str) -> None:
    began = time.process_time()
    assert matching(pattern, ["a" * 2000] * 10) == set()
    assert time.process_time() - began < 2


def test_re2_is_loaded_by_those_who_ask_with_a_pattern() -> None:
    program = "import sys, streamer.broker.server; print('re2' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert loaded.stdout == "False\n"
