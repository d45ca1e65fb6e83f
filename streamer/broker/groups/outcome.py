"""What a step of a group brings about: answers, what must be written down, news.

The group only says so. `coordinator.py` fetches it (`Group.take`) and sees to it, and tells
the group when something was written down, or could not be (`Group.stored`).
"""

from typing import NamedTuple, TypeAlias

from streamer.broker.groups.member import Joined, Kept, Member, Synced, Token
from streamer.wire.error_codes import ErrorCode


class Snapshot(NamedTuple):
    """The group, as it is written down."""

    generation: int
    protocol_type: str | None
    protocol: str | None
    leader: str | None
    members: tuple[Kept, ...]
    since: float
    """When it came into its state."""


class Assigned(NamedTuple):
    """The leader has handed out the work."""

    snapshot: Snapshot


class Replaced(NamedTuple):
    """A static member has come back under a new id, and is told `joined`."""

    snapshot: Snapshot
    before: Member
    joined: Joined
    token: Token


class Emptied(NamedTuple):
    """Nobody is in the group any more."""

    snapshot: Snapshot


Store: TypeAlias = Assigned | Replaced | Emptied
"""To be written down, and why."""


class Ready:
    """What has come about since it was last fetched."""

    __slots__ = ("answers", "news", "to_store")

    def __init__(self) -> None:
        self.answers: list[tuple[Token, Joined | Synced]] = []
        self.to_store: list[Store] = []
        self.news: list[str] = []
        """For the log."""

    def answer(self, token: Token, answer: Joined | Synced) -> None:
        self.answers.append((token, answer))

    def refuse(self, token: Token, error: ErrorCode, member_id: str = "") -> None:
        """Answer a JoinGroup with an error."""
        self.answer(token, Joined(error, member_id=member_id))

    def supersede(self, token: Token, answer: type[Joined] | type[Synced]) -> None:
        """The member has asked again, elsewhere: nobody should be left to wait here."""
        self.answer(token, answer(ErrorCode.REBALANCE_IN_PROGRESS))

    def dismiss(self, member: Member, error: ErrorCode, member_id: str) -> None:
        """Answer whatever this member still waits for."""
        if member.join is not None:
            self.refuse(member.join, error, member_id)
            member.join = None
        if member.sync is not None:
            self.answer(member.sync, Synced(error))
            member.sync = None

    def store(self, store: Store) -> None:
        self.to_store.append(store)

    def tell(self, news: str) -> None:
        self.news.append(news)
