"""What can go wrong with state, and the way out.

StateError          the disk or the store fails
├── StoreDamaged    what was found cannot be read: it can be had again from the changelog
├── StoreHeld       somebody has it open
├── StoreClosed     it was closed while somebody read it
└── NoSlot          no folder for this worker
"""

from streamer.errors import StreamerError


class StateError(StreamerError):
    """The disk or the store fails."""

    remedy = (
        "Look after the disk (space, permissions), then start again: the state is "
        "brought back from the changelog."
    )


class StoreDamaged(StateError):
    remedy = "Remove it: it is brought back from the changelog."


class StoreHeld(StateError):
    remedy = "End whoever has it open: each worker needs a slot of its own."


class StoreClosed(StateError):
    """The partition went to another worker, or this one stops."""

    remedy = "Ask again: the partition has gone to another worker, or this one stops."


class NoSlot(StateError):
    remedy = "Name a state directory on a local disk that this user may write to."
