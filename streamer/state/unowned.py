"""State that has gone elsewhere: removed once it has not been ours for a while.

A partition that moves to another worker leaves its state here, in case it comes back soon:
then only what changed meanwhile is read. After `state.cleanup.delay` it goes. Only in our
own slot: what lies in another belongs to whoever takes that next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamer.state.store import Place, Stores


def unowned(
    kept: Mapping[Place, int], owned: Collection[Place], *, now_ms: int, delay_ms: int
) -> list[Place]:
    """What may go, of all that is kept, by when each was last in use (milliseconds)."""
    return [
        place
        for place, last_used_ms in kept.items()
        if place not in owned and now_ms - last_used_ms > delay_ms
    ]


def clean_up(
    stores: Stores, owned: Collection[Place], *, now_ms: int, delay_ms: int
) -> list[Place]:
    """Remove what may go; what went. `owned`: all that is open, or will be soon."""
    going = unowned(stores.kept(), owned, now_ms=now_ms, delay_ms=delay_ms)
    for table, partition in going:
        stores.forget(table, partition)
    return going
