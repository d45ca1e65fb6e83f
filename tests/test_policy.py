"""What becomes of a record that fails: which policy applies, and when it is tried again."""

from __future__ import annotations

from typing import Any

import pytest

import streamer
from streamer.policy import (
    BACKOFF_MAX_S,
    InvalidPolicy,
    Policy,
    Verdict,
    chosen,
    dead_letter,
    fail,
    policy,
    retry,
    skip,
)


def test_policies_go_by_name() -> None:
    assert policy("fail") is fail
    assert policy("skip") is skip
    assert policy("dead_letter") is dead_letter
    assert policy(skip) is skip


@pytest.mark.parametrize("wanted", ["ignore", 3, None])
def test_what_is_no_policy_is_an_error_that_lists_them(wanted: Any) -> None:
    with pytest.raises(InvalidPolicy, match="dead_letter"):
        policy(wanted)


def test_a_retry_waits_twice_as_long_each_time_but_not_for_ever() -> None:
    patient = retry(20, backoff=0.5)

    waits = [patient.wait_before(attempt) for attempt in range(2, 12)]

    assert patient.attempts == 21
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == BACKOFF_MAX_S


def test_a_retry_ends_as_it_says() -> None:
    assert retry(2).verdict is Verdict.FAIL
    assert retry(2, then="skip").verdict is Verdict.SKIP
    assert retry(2, then=dead_letter).verdict is Verdict.DEAD_LETTER


@pytest.mark.parametrize("wrong", [{"times": 0}, {"times": 2, "backoff": -1.0}])
def test_a_retry_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy):
        retry(**wrong)


async def test_a_function_chooses_by_the_error() -> None:
    def look(agent: str, error: BaseException) -> Policy | str:
        return "skip" if isinstance(error, KeyError) else retry(5)

    assert await chosen(look, "agent", KeyError()) is skip
    assert (await chosen(look, "agent", ValueError())).attempts == 6


async def test_a_function_may_be_async_and_may_say_nothing() -> None:
    async def look(agent: str, error: BaseException) -> None:
        assert agent == "agent"

    assert await chosen(look, "agent", KeyError()) is fail


def test_an_agent_says_at_once_that_there_is_no_such_policy() -> None:
    app = streamer.App("shop", broker="localhost:1")

    with pytest.raises(InvalidPolicy):

        @app.agent(app.topic("orders"), on_error="ignore")
        async def count(stream: streamer.Stream[Any]) -> None: ...
