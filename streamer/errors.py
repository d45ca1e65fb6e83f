"""Every error a user may meet: what went wrong, then the way out.

    StreamerError
    ├── SettingsError      a name or value in a flag, the environment or a file
    ├── BrokerError        the broker cannot start or go on
    └── ...                each package adds its own below these

Errors of the Kafka protocol are not exceptions but codes: `wire/error_codes.py`.
"""


class StreamerError(Exception):
    """Base class: `except streamer.errors.StreamerError` catches them all."""

    remedy = "See the logged traceback; if it looks like our fault, please report it."

    def __init__(self, problem: str, *, remedy: str | None = None) -> None:
        self.problem = problem
        self.remedy = remedy or self.remedy
        super().__init__(f"{problem}\n  -> {self.remedy}")


class SettingsError(StreamerError):
    remedy = (
        "`streamer broker --show-config` lists the broker's settings with their values and "
        "origins, `streamer -A APP config` those of an app."
    )


class BrokerError(StreamerError):
    """The broker cannot start, or cannot go on."""
