"""Which path leads where. The worker's own paths come first, then the app's, then `/`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from streamer.web import health, index, pages
from streamer.web.answers import http_exception, json_answer
from streamer.web.metrics import Metrics
from streamer.web.tables import Tables
from streamer.web.view import View


def site(view: View) -> Starlette:
    metrics, tables = Metrics(view), Tables(view)

    async def livez(request: Request) -> Response:
        return json_answer({"status": "ok"})

    async def healthz(request: Request) -> Response:
        status, told = health.health(view)
        return json_answer(told, status)

    async def readyz(request: Request) -> Response:
        status, told = health.readiness(view)
        return json_answer(told, status)

    async def numbers(request: Request) -> Response:
        text, content_type = metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def front(request: Request) -> Response:
        return HTMLResponse(index.page(view))

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", numbers),
            Route("/table/", tables.all),
            Route("/table/{name}", tables.one),
            Route("/table/{name}/{key:path}", tables.value),
            *pages.routes(view.app),
            Route("/", front),
        ],
        exception_handlers={HTTPException: http_exception},
    )
