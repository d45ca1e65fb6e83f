"""What a long start, or a long recovery of state, has come to: a line now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from streamer.app import App
from streamer.state.recovery import Progress

EACH_S = 2.0


async def report(app: App, tell: Callable[[str], None], each_s: float = EACH_S) -> None:
    """For as long as the app runs."""
    waited_s = 0.0
    while True:
        await asyncio.sleep(each_s)
        worker: Any = app._runtime
        if worker is None:
            waited_s += each_s
            tell(f"Waiting for the broker, since {waited_s:g} s.")
            continue
        recovery = worker.tables.recovery
        if recovery is not None and recovery.progress.seconds >= each_s:
            tell(described(recovery.progress))


def described(progress: Progress) -> str:
    """How far it is, how fast, how long it will take."""
    share = 100 * progress.done // progress.total if progress.total else 100
    words = [
        f"State is being restored: {share} % of {progress.total:,} changes, "
        f"{len(progress.left)} partitions to go, {progress.rate:,.0f} a second"
    ]
    if (eta_s := progress.eta_seconds) is not None:
        words.append(f", {eta_s:,.0f} s left")
    if progress.trouble:
        words.append(f". It waits: {progress.trouble.rstrip('.')}")
    return "".join(words) + "."
