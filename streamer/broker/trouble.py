"""What to do about an error of the operating system, in words for the log.

The error itself says what happened; these say what a person can do about it.
"""

import errno

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NOT_AS_EXPECTED = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT})


def way_out(error: BaseException | None) -> str:
    """The advice that belongs to `error`."""
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        return (
            "Make room, or keep less: lower retention.ms or retention.bytes, delete topics."
            " Writing works again as soon as there is room."
        )
    if number in TOO_MANY_FILES:
        return "Allow the broker more open files (`ulimit -n`), or lower max.connections."
    if number in NOT_ALLOWED:
        return "Let the broker's user write to that folder, then start it again."
    if number in NOT_AS_EXPECTED:
        return "Put things there back as they were, or give the broker another --data-dir."
    return (
        "Check the disk (dmesg, SMART), then start the broker again: it recovers from what"
        " is really on disk."
    )
