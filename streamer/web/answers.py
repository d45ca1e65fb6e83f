"""What pages answer, as JSON."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamer.codecs import codec_for

JSON = codec_for(None, None, default="json")


def json_answer(value: Any, status: int = 200) -> Response:
    """Records, dates and whatever else has a form in JSON may be in it."""
    return Response(JSON.encode(value), status, media_type="application/json")


def problem(status: int, error: str, **more: Any) -> Response:
    return json_answer({"error": error, **more}, status)


def http_exception(request: Request, error: Exception) -> Response:
    """What starlette raises: no such path, not by this method."""
    assert isinstance(error, HTTPException)
    return problem(
        error.status_code, f"{error.detail}: {request.method} {request.url.path}"
    )
