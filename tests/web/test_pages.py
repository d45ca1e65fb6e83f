"""`@app.page`: what a function may take, and what becomes of its answer."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from support.apps import until
from support.pages import WebBench, get

import streamer
from streamer.app import Page as Declared
from streamer.web.pages import InvalidPage, Web, checked, positional


class Order(streamer.Record):
    item: str
    quantity: int = 1


async def test_what_a_page_returns_is_the_answer(bench: WebBench) -> None:
    app = bench.app()

    @app.page("/dict")
    async def a_dict(request: Request) -> dict[str, Any]:
        return {"asked": request.query_params["q"], "orders": [Order("tea")]}

    @app.page("/record/{item}")
    async def a_record(request: Request, item: str) -> Order:
        return Order(item, 2)

    @app.page("/text")
    async def a_text() -> str:
        return "<p>tea</p>"

    @app.page("/bytes")
    async def some_bytes(request: Request) -> bytes:
        return b"\x00tea"

    @app.page("/nothing")
    async def nothing(request: Request) -> None:
        return None

    @app.page("/response")
    async def a_response(request: Request) -> Response:
        return Response("made", 201, {"x-by": request.method})

    @app.page("/faust/{number:int}")
    async def as_faust(web: Web, request: Request, number: int) -> Response:
        return web.json({"number": number})

    async with app:
        a = await get(app, "/dict?q=1")
        assert a.headers["content-type"] == "application/json"
        assert a.json["asked"] == "1"
        assert a.json["orders"][0]["item"] == "tea"
        assert (await get(app, "/record/tea")).json["item"] == "tea"
        b = await get(app, "/text")
        assert (b.text, b.headers["content-type"]) == (
            "<p>tea</p>",
            "text/html; charset=utf-8",
        )
        assert (await get(app, "/bytes")).body == b"\x00tea"
        assert (await get(app, "/nothing")).status == 204
        c = await get(app, "/response", method="POST")
        assert (c.status, c.text, c.headers["x-by"]) == (201, "made", "POST")
        assert (await get(app, "/faust/7")).json == {"number": 7}
        assert (await get(app, "/nosuch")).json == {"error": "Not Found: GET /nosuch"}


async def test_a_page_that_raises_is_answered_with_500_and_logged(
    bench: WebBench, caplog: pytest.LogCaptureFixture
) -> None:
    app = bench.app()

    @app.page("/secret", name="secret")
    async def secret(request: Request) -> str:
        raise RuntimeError("the password is tea")

    @app.page("/unreadable", name="unreadable")
    async def unreadable(request: Request) -> object:
        return {"an": object()}

    @app.page("/forbidden")
    async def forbidden(request: Request) -> str:
        raise HTTPException(403, "Not you")

    async with app:
        page = await get(app, "/secret")
        assert (page.status, page.json) == (500, {"error": "Page secret has failed."})
        assert (await get(app, "/unreadable")).status == 500
        page = await get(app, "/forbidden")
        assert (page.status, page.json) == (403, {"error": "Not you: GET /forbidden"})

    told = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "the password is tea" in str(told[0].exc_info)
    assert len(told) == 2


async def test_a_page_reads_tables_sends_and_asks(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()
    orders = app.topic(source, value_type=Order)
    sold: streamer.Table[str, int] = app.Table("sold", default=int)

    @app.agent(orders)
    async def count(stream: streamer.Stream[Order]) -> Any:
        async for order in stream:
            sold[order.item] += order.quantity
            yield sold[order.item]

    @app.page("/order/{item}")
    async def order(request: Request, item: str) -> dict[str, Any]:
        if request.method == "POST":
            sent = await orders.send(value=Order(item, 5))
            return {"offset": sent.offset}
        return {"sold": sold[item]}

    @app.page("/ask/{item}")
    async def ask(request: Request, item: str) -> dict[str, Any]:
        return {"sold": await count.ask(Order(item))}

    async with app:
        assert (await get(app, "/order/tea")).json == {"sold": 0}
        assert (await get(app, "/order/tea", method="POST")).json == {"offset": 0}
        await until(lambda: sold["tea"] == 5)
        assert (await get(app, "/order/tea")).json == {"sold": 5}
        assert (await get(app, "/ask/tea")).json == {"sold": 6}


async def test_a_page_of_the_app_may_be_its_front_page(bench: WebBench) -> None:
    app = bench.app()

    @app.page("/")
    async def front(request: Request) -> str:
        return "ours"

    async with app:
        assert (await get(app, "/")).text == "ours"


async def plain(request: Request) -> str:
    return ""


def not_async(request: Request) -> Any:
    return ""


async def many(web: Web, request: Request, item: str, other: str) -> str:
    return ""


@pytest.mark.parametrize("path", ["/table/x", "/metrics", "/healthz", "/table"])
def test_a_page_may_not_have_a_path_of_the_worker(path: str) -> None:
    with pytest.raises(InvalidPage, match="the worker answers itself"):
        checked(Declared(path, plain, "plain"))


def test_a_path_that_only_begins_like_one_of_the_worker_is_free() -> None:
    assert checked(Declared("/tables", plain, "plain"))
    assert checked(Declared("/metrics2/x", plain, "plain"))


def test_a_page_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidPage, match="does not begin with /"):
        checked(Declared("tea", plain, "plain"))
    with pytest.raises(InvalidPage, match="no async function"):
        checked(Declared("/tea", not_async, "plain"))
    with pytest.raises(InvalidPage, match="web, request, other"):
        positional(Declared("/tea/{item}", many, "many"))


async def test_an_app_with_an_invalid_page_does_not_start(bench: WebBench) -> None:
    app = bench.app()
    app.page("tea")(plain)

    with pytest.raises(InvalidPage):
        await app.start()
    with pytest.raises(InvalidPage):  # nothing is left that runs
        await app.start()
