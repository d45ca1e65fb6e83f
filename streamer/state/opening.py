"""Opening a store that may be used: as it was left, or made anew where it is not to be
trusted. `identity.py` judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streamer.state.errors import StoreDamaged
from streamer.state.identity import Identity, Verdict, judge
from streamer.state.store import Store, Stores


def opened(
    stores: Stores,
    wanted: Identity,
    *,
    now_ms: int,
    changelog_begin: int,
    changelog_end: int,
    delete_retention_ms: int,
    changed: Callable[[str], str] | None = None,
) -> tuple[Store, Verdict]:
    """The store of `wanted`, claimed for it; and what is to be said about it, if anything.

    Where the changelog begins and ends has to be asked first, and `now_ms` read before.
    `changed` is given what its values were, where that is not what is wanted; it says what
    that means, and raises if they cannot be read.
    """
    fresh = replace(wanted, in_step_ms=now_ms)
    try:
        store = stores.open(wanted.table, wanted.partition)
    except StoreDamaged as error:
        verdict = Verdict(
            keep=False,
            because=f"The state of table {wanted.table!r}, partition {wanted.partition} "
            f"is rebuilt: it is damaged. {error.problem}",
        )
    else:
        found, position = store.identity, store.position
        verdict = judge(
            found,
            wanted,
            position=position,
            now_ms=now_ms,
            changelog_begin=changelog_begin,
            changelog_end=changelog_end,
            delete_retention_ms=delete_retention_ms,
        )
        if verdict.keep:
            # One that is behind is as old as it was, until it has been brought up to date.
            if found is not None and position is not None:
                fresh = replace(wanted, in_step_ms=found.in_step_ms)
                if changed is not None and found.value_type != wanted.value_type:
                    try:
                        verdict = Verdict(keep=True, because=changed(found.value_type))
                    except BaseException:
                        store.close()
                        raise
            store.claim(fresh)
            return store, verdict
        store.close()
    stores.forget(wanted.table, wanted.partition)
    store = stores.open(wanted.table, wanted.partition)
    store.claim(fresh)
    return store, verdict
