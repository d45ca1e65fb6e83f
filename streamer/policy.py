"""What becomes of a record whose handler raised, or that cannot be decoded.

    fail           it is tried again a few times, then the worker ends and says why
    skip           it is logged and done
    dead_letter    it is sent, as it was, to a topic of dead letters, and is done
    retry(n, ...)  it is tried again, each time later, and then one of the above

Whatever it did before it raised has not happened. This module decides; `worker/actor.py`
acts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from streamer.errors import StreamerError

FAIL_ATTEMPTS = 3
FAIL_BACKOFF_S = 0.2
BACKOFF_MAX_S = 60.0


class InvalidPolicy(StreamerError):
    remedy = (
        "on_error= takes 'fail', 'skip', 'dead_letter', streamer.retry(5, backoff=1.0),"
        " or a function that gets the agent and the exception and gives one of these."
    )


class Verdict(Enum):
    """What is done at last."""

    FAIL = "fail"
    SKIP = "skip"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Policy:
    verdict: Verdict
    attempts: int = 1
    """How often it is tried in all."""
    backoff_s: float = 0.0
    """How long to wait before the second time; then twice as long each time."""

    def wait_before(self, attempt: int) -> float:
        """Seconds to wait before the attempt with this number; the first is 1."""
        return min(BACKOFF_MAX_S, self.backoff_s * 2.0 ** max(0, attempt - 2))


fail = Policy(Verdict.FAIL, FAIL_ATTEMPTS, FAIL_BACKOFF_S)
skip = Policy(Verdict.SKIP)
dead_letter = Policy(Verdict.DEAD_LETTER)

_NAMED = {"fail": fail, "skip": skip, "dead_letter": dead_letter}

OnError = Policy | str | Callable[[Any, BaseException], Any]
"""A function, which may be async, gets the agent and the exception."""


def retry(times: int, backoff: float = 0.5, *, then: Policy | str = fail) -> Policy:
    """Try again so often, `backoff` seconds later, then twice that, and so on."""
    if times < 1 or backoff < 0:
        raise InvalidPolicy(f"retry({times}, backoff={backoff}) makes no sense.")
    return Policy(policy(then).verdict, times + 1, backoff)


def policy(wanted: OnError) -> Policy:
    """The policy by its name."""
    if isinstance(wanted, Policy):
        return wanted
    if isinstance(wanted, str) and wanted in _NAMED:
        return _NAMED[wanted]
    raise InvalidPolicy(f"{wanted!r} is no policy for errors.")


def sends_dead_letters(wanted: OnError) -> bool:
    """Whether it is certain from the start. What a function will say is not."""
    is_fixed = isinstance(wanted, Policy | str)
    return is_fixed and policy(wanted).verdict is Verdict.DEAD_LETTER


async def chosen(wanted: OnError, agent: Any, error: BaseException) -> Policy:
    """The policy for this error: a function may look at it and choose."""
    if isinstance(wanted, Policy | str):
        return policy(wanted)
    found = wanted(agent, error)
    if inspect.isawaitable(found):
        found = await found
    return fail if found is None else policy(found)
