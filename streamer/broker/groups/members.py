"""Who is in a group, who leads it, and what they can agree upon.

By member id; static members also go by their instance id, one member to an instance. The
first to come leads, and whoever is left when the leader goes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from streamer.broker.groups.member import Kept, Listed, Member, Protocol
from streamer.wire.error_codes import ErrorCode
from streamer.wire.subscription import subscribed_topics


class Members(Mapping[str, Member]):
    __slots__ = ("_by_instance", "_members", "leader")

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._by_instance: dict[str, str] = {}
        self.leader: str | None = None
        """One of them; None while nobody is in the group."""

    def __getitem__(self, member_id: str) -> Member:
        return self._members[member_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def of_instance(self, instance_id: str) -> Member | None:
        member_id = self._by_instance.get(instance_id)
        return None if member_id is None else self._members[member_id]

    def error(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """What is wrong with a request in this name, if anything."""
        if instance_id is not None:
            known = self._by_instance.get(instance_id)
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self else ErrorCode.UNKNOWN_MEMBER_ID

    # Coming and going.

    def add(self, member: Member) -> None:
        self._members[member.member_id] = member
        if member.instance_id is not None:
            self._by_instance[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id

    def remove(self, member: Member) -> None:
        del self._members[member.member_id]
        if member.instance_id is not None:
            del self._by_instance[member.instance_id]
        if self.leader == member.member_id:
            self.leader = next(iter(self._members), None)

    def rename(self, member: Member, member_id: str) -> Member:
        """The same static member under another id, which leads if it did."""
        led = self.leader == member.member_id
        self.remove(member)
        renamed = replace(member, member_id=member_id, is_new=False)
        self.add(renamed)
        if led:
            self.leader = member_id
        return renamed

    # What they are waited for.

    @property
    def have_all_joined(self) -> bool:
        return all(member.join is not None for member in self.values())

    @property
    def joined_count(self) -> int:
        return sum(member.join is not None for member in self.values())

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.values()), default=0)

    def elect_leader(self) -> bool:
        """Keep the leader if it came, else take one who did; False if nobody came."""
        came = [member.member_id for member in self.values() if member.join is not None]
        if came and self.leader not in came:
            self.leader = came[0]
        return bool(came)

    # What they agree upon.

    def all_know_one_of(self, protocols: Collection[Protocol]) -> bool:
        return any(
            all(member.knows(protocol.name) for member in self.values())
            for protocol in protocols
        )

    def elect_protocol(self) -> str | None:
        """The one, among those that all know, that most like best; None if nobody votes."""
        members = list(self.values())
        if not members:
            return None
        common = [
            one.name
            for one in members[0].protocols
            if all(member.knows(one.name) for member in members)
        ]
        votes = [member.vote(common) for member in members]
        return max(common, key=votes.count)

    def listed(self, protocol: str) -> tuple[Listed, ...]:
        """As the leader is told of them."""
        return tuple(
            Listed(one.member_id, one.instance_id, one.metadata(protocol))
            for one in self.values()
        )

    def kept(
        self, protocol: str, assignments: Mapping[str, bytes] | None = None
    ) -> tuple[Kept, ...]:
        """As they are written down, with what they have or are to get."""
        return tuple(
            one.kept(
                protocol,
                one.assignment
                if assignments is None
                else assignments.get(one.member_id, b""),
            )
            for one in self.values()
        )

    def subscribed(self, protocol: str | None) -> frozenset[str] | None:
        """The topics they read, if they say so in words that we understand."""
        found: set[str] = set()
        for member in self.values():
            topics = subscribed_topics(member.metadata(protocol or ""))
            if topics is None:
                return None
            found.update(topics)
        return frozenset(found)
