"""How both coordinators name a partition and a producer."""

from typing import NamedTuple


class Place(NamedTuple):
    """A partition: of a topic, or of a log of the coordinators themselves."""

    topic: str
    partition: int


class Producer(NamedTuple):
    """In whose transaction something is written: an older epoch is somebody else."""

    id: int
    epoch: int
