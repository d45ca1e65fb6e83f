"""Health: what an orchestrator asks, and what the answer is tied to.

    /livez      the loop turns: there is an answer
    /healthz    the worker gets on. 503 if it has something to do and does nothing
    /readyz     its partitions are assigned and their state is there; 503 meanwhile

An idle worker is healthy; so is one whose handlers are slow, as long as one of them comes
to an end within `health.stall.ms`. Restart a worker that is not healthy; send no requests
to one that is not ready.
"""

from __future__ import annotations

from typing import Any

from streamer.state.recovery import Progress
from streamer.web.view import Standing, View


def reasons(standing: Standing, limit_s: float) -> list[str]:
    """Why it is not healthy; nothing if it is."""
    if standing.failure:
        return [f"It cannot go on: {standing.failure}"]
    found = []
    if standing.polled_s > limit_s:
        found.append(f"Nothing was asked for in Kafka for {standing.polled_s:.0f} s.")
    if standing.undone_s > limit_s:
        found.append(f"No transaction has succeeded for {standing.undone_s:.0f} s.")
    found += [
        f"{agent.name} has {agent.in_hand} records in hand and {agent.waiting} waiting, and"
        f" has done nothing for {agent.stuck_s:.0f} s."
        for agent in standing.agents
        if agent.stuck_s > limit_s
    ]
    return found


def health(view: View) -> tuple[int, dict[str, Any]]:
    limit_s = view.app.conf.health_stall_ms / 1000
    found = reasons(view.standing(), limit_s)
    if found:
        return 503, {"status": "stalled", "reasons": found}
    return 200, {"status": "ok"}


def readiness(view: View) -> tuple[int, dict[str, Any]]:
    if view.ready:
        return 200, {"status": "ready"}
    if view.stopping:
        return 503, {"status": "stopping"}
    standing = view.standing()
    if standing.failure:
        return 503, {"status": "failed", "reason": standing.failure}
    recovery = standing.recovery
    if recovery is None:
        return 503, {"status": "waiting for partitions"}
    return 503, {"status": "restoring", **progress(recovery)}


def progress(recovery: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {
        "done": recovery.done,
        "total": recovery.total,
        "per_second": round(recovery.rate),
    }
    if recovery.eta_seconds is not None:
        told["seconds_left"] = round(recovery.eta_seconds, 1)
    if recovery.trouble:
        told["trouble"] = recovery.trouble
    return told
