"""The states of a group, and which may follow which; and what the settings allow it."""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """Named as clients are told."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


NEXT = {
    State.EMPTY: {State.PREPARING, State.DEAD},
    State.PREPARING: {State.COMPLETING, State.EMPTY},
    State.COMPLETING: {State.PREPARING, State.STABLE},
    State.STABLE: {State.PREPARING},
    State.DEAD: set[State](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    session_timeout_min_ms: int
    session_timeout_max_ms: int
    members_max: int
    initial_delay_ms: int
    """How long the first members of an empty group wait for others."""

    def allow_session(self, timeout_ms: int) -> bool:
        return self.session_timeout_min_ms <= timeout_ms <= self.session_timeout_max_ms
