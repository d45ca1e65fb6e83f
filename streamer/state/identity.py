"""Whose a store is, and whether it may be used.

State on disk may be anybody's: of an app of another name, of a topic that was deleted and
made anew, of last month. Each store says whose it is, and what it says is compared with
what is wanted before a record of it is read. The state can always be had again from its
changelog, so in doubt it is.

Age counts because a changelog forgets: `delete.retention.ms` after a key was deleted, the
record that says so may be gone, and a store that has not read it would keep the key for
ever. So what a store keeps is not when it was last written to but when it was last in step
with its changelog: while it is brought up to date it is as old as before. Half the time is
allowed, since bringing it up to date takes time as well, and clocks differ.

Pure: the time, and where the changelog begins and ends, are arguments. `opening.py` acts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

FORMAT = 1
"""Of a store: how keys, position and identity are laid out. Others are rebuilt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    app: str
    table: str
    partition: int
    # How many partitions the table has: it decides which keys are in which.
    partitions: int
    changelog: str
    # The topic's id, where the broker tells it: one made anew under the name has another.
    changelog_id: str | None = None
    # What its values are, as the codec describes it (JSON).
    value_type: str = ""
    # When it last held all that its changelog held, to the minute.
    in_step_ms: int = 0
    format: int = FORMAT

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @staticmethod
    def decode(data: bytes) -> Identity | None:
        """None if it is nothing that this version wrote."""
        try:
            found = json.loads(data)
            if found["format"] != FORMAT:
                return None
            return Identity(**{field.name: found[field.name] for field in fields(Identity)})
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Verdict:
    keep: bool
    # A sentence to be shown; empty when there is nothing to say.
    because: str = ""


def judge(
    found: Identity | None,
    wanted: Identity,
    *,
    position: int | None,
    now_ms: int,
    changelog_begin: int,
    changelog_end: int,
    delete_retention_ms: int,
) -> Verdict:
    """Whether a store that is at `position` may go on, or is made anew from its changelog.

    `changelog_end` is the end of all records, committed or not: what we wrote last may be
    committed, and its marker still on the way.
    """
    if position is None:
        return Verdict(keep=True)
    why = _why_not(
        found, wanted, position, now_ms, changelog_begin, changelog_end, delete_retention_ms
    )
    if why:
        return Verdict(
            keep=False, because=f"The state of {_name(wanted)} is rebuilt: {why}."
        )
    assert found is not None, "one that is unknown is not kept"
    if found.value_type != wanted.value_type:
        return Verdict(
            keep=True,
            because=f"The values of {_name(wanted)} were written as "
            f"{found.value_type or 'an unknown type'}; from now on they are read as "
            f"{wanted.value_type or 'an unknown type'}.",
        )
    return Verdict(keep=True)


def _why_not(
    found: Identity | None,
    wanted: Identity,
    position: int,
    now_ms: int,
    begin: int,
    end: int,
    delete_retention_ms: int,
) -> str:
    """Why a store cannot be used; empty if it can."""
    if found is None:
        return "it was written in a format that this version does not know"
    for was, is_now in zip(_marks(found), _marks(wanted), strict=True):
        # Not every broker tells the id of a topic.
        if was and is_now and was != is_now:
            return f"it belongs to {was}, not to {is_now}"
    if position > end:
        return (
            f"it is at offset {position} of {wanted.changelog}, which ends at {end}: "
            "the topic was made anew, or has lost records"
        )
    if position < begin:
        return (
            f"it is at offset {position} of {wanted.changelog}, which begins at {begin} "
            "by now: what was deleted between is not known"
        )
    age_ms = abs(now_ms - found.in_step_ms)  # a clock that was set back is not believed
    if position < end and age_ms > delete_retention_ms / 2:
        return (
            f"it was up to date {_hours(age_ms)} ago, and {wanted.changelog} forgets what "
            f"was deleted after {_hours(delete_retention_ms)} (delete.retention.ms)"
        )
    return ""


def _marks(identity: Identity) -> list[str]:
    """What must be the same, in words."""
    return [
        f"app {identity.app!r}",
        f"table {identity.table!r}",
        f"partition {identity.partition}",
        f"a table of {identity.partitions} partitions",
        f"changelog {identity.changelog}",
        f"a topic with the id {identity.changelog_id}" if identity.changelog_id else "",
    ]


def _name(identity: Identity) -> str:
    return f"table {identity.table!r}, partition {identity.partition}"


def _hours(ms: float) -> str:
    return f"{ms / 3_600_000:.1f} hours"
