"""A worker that comes back with other topics than it left with.

The group gives a static member that returns what it had before, without asking what it
wants now. That is what makes restarts quick; but an app that was changed in between would
be given topics that it does not read any more, and none of those it does now. So when its
former self is still known with other topics, the worker waits until the group has
forgotten it: for `session.timeout.ms` at most.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from streamer.client.interface import Admin, GroupMember, NoSuchGroup

log = logging.getLogger(__name__)

LOOK_S = 0.5


def wait_until_forgotten(
    admin: Admin,
    group: str,
    instance_id: str,
    topics: frozenset[str],
    *,
    session_timeout_s: float,
    in_vain: Callable[[], bool],
) -> None:
    """Blocks until the group does not know this member with other topics."""
    until, told = time.monotonic() + session_timeout_s + 5.0, False
    while time.monotonic() < until and not in_vain():
        try:
            members = admin.group(group).members
        except NoSuchGroup:
            return
        if not is_other(members, instance_id, topics):
            return
        if not told:
            log.warning(
                "The group still knows this worker with other topics; it goes on when that"
                " is forgotten, in %g s at most.",
                session_timeout_s,
            )
            told = True
        time.sleep(LOOK_S)


def is_other(
    members: Iterable[GroupMember], instance_id: str, topics: frozenset[str]
) -> bool:
    """Whether what the group has given this member is not what `topics` would give it.

    Only some of the topics may well be: one has fewer partitions than there are workers.
    But one that no member has any of is one that the group has not heard of.
    """
    given: dict[str | None, set[str]] = defaultdict(set)
    for member in members:
        given[member.instance_id] |= {at.topic for at in member.partitions}
    ours, anybodys = given[instance_id], set().union(*given.values())
    return bool(ours) and not (ours <= topics <= anybodys)
