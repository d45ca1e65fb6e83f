"""A pattern that a client brings along, held against the transactional ids.

It is a regular expression as Apache Kafka knows them, RE2's, and must match a whole id.
RE2 takes time in proportion to the id, whatever the pattern: Python's own `re` could be
kept busy for years by a few characters. What is left to bound is the pattern. So:

    a pattern is short        reading it holds up the loop, from wherever it is read
    what it becomes is small  or matching it takes long, though that is in proportion

and ids are matched in a thread, beside which the loop goes on. `re2` is imported at first
use: hardly anybody asks so.
"""

from __future__ import annotations

from collections.abc import Iterable

# Measured: the worst of this length takes 20 ms to read.
CHARACTERS_MAX = 1000
# For a pattern, and for what is remembered while matching: 0.3 ms an id at the worst.
MEMORY_BYTES = 256 << 10


class InvalidPattern(Exception):
    """It is no regular expression, or one that asks too much."""


def matching(pattern: str, ids: Iterable[str]) -> set[str]:
    """Those ids that `pattern` matches from end to end. Raises InvalidPattern."""
    import re2

    if len(pattern) > CHARACTERS_MAX:
        raise InvalidPattern(f"it has more than {CHARACTERS_MAX} characters")
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.never_capture = True
    options.log_errors = False  # It would write them to our standard error.
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise InvalidPattern("RE2 does not take it") from error
    # Or it would keep the last hundred, with all the memory that they have taken.
    re2.purge()
    return {one for one in ids if compiled.fullmatch(one) is not None}
