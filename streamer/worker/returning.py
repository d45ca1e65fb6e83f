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
from collections.abc import Callable

from streamer.client.interface import Admin, NoSuchGroup

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
        known = known_topics(admin, group, instance_id)
        if not known or known == topics:
            return
        if not told:
            log.warning(
                "The group still knows this worker with other topics (%s); it goes on when"
                " that is forgotten, in %g s at most.",
                ", ".join(sorted(known)),
                session_timeout_s,
            )
            told = True
        time.sleep(LOOK_S)


def known_topics(admin: Admin, group: str, instance_id: str) -> frozenset[str]:
    """The topics that the group has given to its member of this name."""
    try:
        members = admin.group(group).members
    except NoSuchGroup:
        return frozenset()
    return frozenset(
        at.topic
        for member in members
        if member.instance_id == instance_id
        for at in member.partitions
    )
