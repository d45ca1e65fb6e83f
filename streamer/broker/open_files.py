"""How many files this process may open, and what is left of that for connections.

The log keeps some open and closes them when it needs others (`log/disk.py`); a connection
cannot be closed and reopened. So fewer connections are accepted than there is room for:
what threads read and sync must never find the last file taken by a socket.
"""

import logging
import resource

from streamer.log.disk import open_files_limit

log = logging.getLogger(__name__)

# Files open for a moment only: threads that flush and read, listeners, the journal.
SPARE = 32
WANTED = 65_536


def allow_many() -> None:
    """Raise the limit as far as this user may: the usual 1,024 is meant for others."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if most == resource.RLIM_INFINITY else min(WANTED, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (OSError, ValueError):
            pass  # Then with fewer.


def connections_max(configured: int) -> int:
    """How many connections to accept, where `configured` are wished for."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return configured
    room = max(1, allowed - open_files_limit() - SPARE)
    if room < configured:
        log.info(
            "%d connections at most are accepted, not %d: no more than %d files may be "
            "open here (`ulimit -n`).",
            room,
            configured,
            allowed,
        )
    return min(room, configured)
