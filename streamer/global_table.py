"""GlobalTable: a table that every worker has the whole of.

    prices = app.GlobalTable("prices", default=float)

    prices[order.item]     anywhere: in agents, timers, pages, whatever the key

It is written like a `Table`: by agents, to the partition of the record in hand, in the
transaction of that record. All workers follow its changelog, committed records only, and
have all of it before they handle their first record.

What is read, from the first that knows the key:

    the record in hand             what it has written itself
    the partition of that record   with what records before it have done
    partitions that are here       what is committed
    partitions of other workers    what has been followed: behind by some milliseconds

So write a key in one partition only, as by `group_by`: where two have it, the first that
is asked answers. Who follows: `worker/globals.py`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from streamer.processing import Hand, current
from streamer.state.table_partition import ABSENT, TablePartition
from streamer.table import Table, TableError
from streamer.window import Window
from streamer.windowed import WindowedTable

K = TypeVar("K")
V = TypeVar("V")


class GlobalTable(Table[K, V]):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        # By number: all partitions, as they were followed.
        self.followed: dict[int, TablePartition] = {}

    def __repr__(self) -> str:
        return f"<GlobalTable {self.name}>"

    def using_window(self, window: Window, key_index: bool = False) -> WindowedTable[K, V]:
        raise TableError(
            f"{self} cannot have windows: what is over for one worker is not for another.",
            remedy="Use app.Table(...) for windows.",
        )

    def __getitem__(self, key: K) -> V:
        value = self._get(key)
        if value is ABSENT:
            return self.__missing__(key)
        found: V = value
        return found

    def _get(self, key: K) -> Any:
        hand = current()
        if hand is not None and self in hand.parts:
            value = super()._get(key)
            if value is not ABSENT:
                return value
            return self._committed(key, without=hand.parts[self])
        return self._committed(key)

    def _committed(self, key: K, without: TablePartition | None = None) -> Any:
        here = self.here
        for number, followed in self.followed.items():
            part = here.get(number, followed)
            if part is not without:
                value = part.committed_get(key)
                if value is not ABSENT:
                    return value
        return ABSENT

    def _parts(self, hand: Hand | None) -> list[TablePartition]:
        return [self.here.get(number, part) for number, part in self.followed.items()]
