"""Watchers: who is woken, how often, and what is left behind."""

import asyncio
from typing import Any, cast

from streamer.broker.waiting import Waiting, Watch, Watchers
from streamer.log.partition import Partition

ONE, OTHER = cast(Partition, "one"), cast(Partition, "other")


class Patient(Waiting):
    """Waits for these partitions, and is only ever looked at from outside."""

    def __init__(self, *partitions: Partition) -> None:
        self.partitions = partitions
        self.deadline = 0.0

    def look(self) -> Any:
        raise NotImplementedError

    def late(self) -> Any:
        raise NotImplementedError


async def test_who_waits_is_woken_by_its_partitions_and_no_others() -> None:
    watchers, woken = Watchers(), list[bool]()
    watch = watchers.watch(Patient(ONE), 60.0, woken.append)

    watchers.moved(OTHER)
    assert woken == []
    watchers.moved(ONE)
    watchers.moved(ONE)
    assert woken == [True, True]
    watch.cancel()


async def test_when_time_is_up_it_is_said_once() -> None:
    watchers, woken = Watchers(), list[bool]()

    watch = watchers.watch(Patient(ONE), -1.0, woken.append)
    await asyncio.sleep(0.01)

    assert woken == [False]
    watch.cancel()


async def test_who_waits_no_longer_is_forgotten() -> None:
    watchers, woken = Watchers(), list[bool]()
    first = watchers.watch(Patient(ONE, OTHER, ONE), 0.001, woken.append)
    second = watchers.watch(Patient(ONE), 60.0, woken.append)

    first.cancel()
    first.cancel()
    watchers.moved(OTHER)
    await asyncio.sleep(0.01)
    assert woken == []
    assert list(watchers.watching) == [ONE]

    second.cancel()
    assert watchers.watching == {}


async def test_who_is_woken_may_stop_waiting_and_let_others_begin() -> None:
    watchers, woken = Watchers(), list[bool]()
    watches: list[Watch] = []

    def wake(in_time: bool) -> None:
        woken.append(in_time)
        watches[0].cancel()
        watches.append(watchers.watch(Patient(ONE), 60.0, woken.append))

    watches.append(watchers.watch(Patient(ONE), 60.0, wake))

    watchers.moved(ONE)
    assert woken == [True]
    for watch in watches:
        watch.cancel()
