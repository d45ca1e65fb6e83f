"""The app's own pages: functions declared with `@app.page`, as routes.

    @app.page("/total/{item}")
    async def total(request, item):
        return {"item": item, "sold": sold[item]}

A function takes nothing, the request, or Faust's `(web, request)`; parts of the path come
by their names. The request is starlette's. What it returns is the answer:

    str             HTML
    bytes           as they are
    None            204, no content
    a Response      itself: starlette's, for another status, headers, a stream
    anything else   JSON: dicts, lists, Records, numbers

One that raises is answered with 500, and the log says why; starlette's HTTPException is
answered with its own status. All methods lead to the function: it has `request.method`.

A page has no record in hand. `table[key]` reads what is committed and is here, `send` goes
at once, `ask` waits for its answer.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from streamer.codecs import ENCODE_ERRORS, encode_error
from streamer.errors import StreamerError
from streamer.web.answers import json_answer, problem

if TYPE_CHECKING:
    from streamer.app import App, Page

log = logging.getLogger(__name__)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
OURS = ("livez", "healthz", "readyz", "metrics", "table")


class InvalidPage(StreamerError):
    remedy = (
        'A page is an async function: @app.page("/total/{item}") above'
        " `async def total(request, item): ...`."
    )


class Web:
    """What Faust gives a page beside the request: makes answers."""

    def __init__(self, app: App) -> None:
        self.app = app

    def json(self, value: Any, *, status: int = 200) -> Response:
        return json_answer(value, status)

    def text(self, text: str, *, status: int = 200) -> Response:
        return PlainTextResponse(text, status)

    def html(self, text: str, *, status: int = 200) -> Response:
        return HTMLResponse(text, status)

    def bytes(self, data: bytes, *, status: int = 200) -> Response:
        return Response(data, status, media_type="application/octet-stream")

    def notfound(self, reason: str = "Not Found") -> Response:
        return problem(404, reason)


def routes(app: App) -> Iterable[BaseRoute]:
    return [
        Route(page.path, endpoint(app, page), methods=METHODS, name=page.name)
        for page in app.pages
        if checked(page)
    ]


def checked(page: Page) -> bool:
    if not page.path.startswith("/"):
        raise InvalidPage(
            f"The path of page {page.name}, {page.path!r}, does not begin with /."
        )
    if page.path.split("/")[1] in OURS:
        raise InvalidPage(
            f"Page {page.name} has {page.path}, which the worker answers itself.",
            remedy="Give it another path.",
        )
    if not inspect.iscoroutinefunction(page.fun):
        raise InvalidPage(f"Page {page.name} is no async function.")
    return True


def endpoint(app: App, page: Page) -> Callable[[Request], Awaitable[Response]]:
    given = positional(page)

    async def answer(request: Request) -> Response:
        arguments = [Web(app), request][-given:] if given else []
        try:
            return as_response(await page.fun(*arguments, **request.path_params))
        except HTTPException:
            raise
        except Exception as error:
            log.exception("Page %s has failed at %s.", page.name, request.url.path)
            known = isinstance(error, StreamerError)
            return problem(500, str(error) if known else f"Page {page.name} has failed.")

    return answer


def positional(page: Page) -> int:
    """How many it takes beside the parts of its path: none, (request), (web, request)."""
    parameters = inspect.signature(page.fun).parameters.values()
    names = [
        one.name
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        and one.default is one.empty
        and f"{{{one.name}}}" not in page.path
        and f"{{{one.name}:" not in page.path
    ]
    if len(names) > 2:
        raise InvalidPage(
            f"Page {page.name} takes {', '.join(names)}; which of them are parts of its"
            f" path {page.path}?"
        )
    return len(names)


def as_response(result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, str):
        return HTMLResponse(result)
    if isinstance(result, bytes):
        return Response(result, media_type="application/octet-stream")
    if result is None:
        return Response(status_code=204)
    try:
        return json_answer(result)
    except ENCODE_ERRORS as error:
        raise encode_error(error, result, "The answer of a page") from error
