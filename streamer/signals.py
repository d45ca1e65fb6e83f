"""Signal: tells those who have connected themselves that something has happened.

@app.on_partitions_assigned.connect
async def assigned(app, partitions): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Fun = TypeVar("Fun", bound=Callable[..., Any])


class Signal:
    def __init__(self) -> None:
        self._receivers: list[Callable[..., Any]] = []

    def connect(self, fun: Fun) -> Fun:
        """Call `fun(app, ...)`, which may be async, each time."""
        self._receivers.append(fun)
        return fun

    def disconnect(self, fun: Callable[..., Any]) -> None:
        self._receivers.remove(fun)

    async def send(self, *arguments: Any) -> None:
        for receiver in self._receivers:
            result = receiver(*arguments)
            if inspect.isawaitable(result):
                await result
