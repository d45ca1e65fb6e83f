"""Why a worker cannot go on."""

from streamer.errors import StreamerError


class WorkerFailed(StreamerError):
    """The worker ends, with its reason."""


class SendFailed(StreamerError):
    """A record that was sent did not arrive; it counts as an error of its handler."""


class RecordFailed(WorkerFailed):
    """A handler failed again and again at one record, and its agent says `fail`."""

    remedy = (
        "Mend the handler, or let the agent go on without such records: "
        "@app.agent(..., on_error='dead_letter') or on_error='skip'."
    )
