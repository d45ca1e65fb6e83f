"""The server of the pages: its port, its life, the front page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.apps import Bench, running, until
from support.pages import WebBench, get

import streamer
from streamer.web.server import NoPort, WebServer


def taken(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0))


async def test_the_next_free_port_is_taken() -> None:
    with taken() as other:
        port = other.getsockname()[1]
        server = WebServer.bind("127.0.0.1", port)
        another = WebServer.bind("127.0.0.1", port)

    assert port < server.port < another.port
    await server.stop()
    await another.stop()


async def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(NoPort, match=r"192\.0\.2\.1:6066") as caught:
        WebServer.bind("192.0.2.1", 6066)

    assert "web.bind" in caught.value.remedy


async def test_ports_end_at_65535() -> None:
    first = WebServer.bind("127.0.0.1", 65535)
    with pytest.raises(NoPort, match="from 65535 to 65535"):
        WebServer.bind("127.0.0.1", 65535)

    await first.stop()


async def test_the_group_knows_where_the_pages_of_a_worker_are(bench: WebBench) -> None:
    app = bench.app()

    @app.agent(app.topic(await bench.topic()))
    async def idle(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    async with app:
        await until(lambda: running(app).ready)
        port = running(app).web_port
        (member,) = running(app).group().members

    assert member.client_id == f"{app.id}@127.0.0.1:{port}/0"


async def test_pages_end_with_the_worker(bench: WebBench) -> None:
    app = bench.app()
    async with app:
        port = running(app).web_port
        assert (await get(port, "/livez")).status == 200

    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    async with app:  # and it may be started again
        assert (await get(app, "/livez")).status == 200


async def test_an_app_may_do_without_pages(bench: Bench) -> None:
    app = bench.app(web_enabled=False)

    async with app:
        assert running(app).web_port == 0


async def test_the_front_page_tells_what_runs_and_quotes_it(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()
    app.Table("sold", default=int, help="<b>Pieces</b>")

    @app.agent(app.topic(source), name="<script>", help="Counts & sums.")
    async def count(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    @app.page("/total")
    async def total() -> str:
        return ""

    async with app:
        await until(lambda: running(app).ready)
        page = await get(app, "/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for shown in (app.id, source, "&lt;script&gt;", "Counts &amp; sums.", "/total"):
        assert shown in page.text
    assert "&lt;b&gt;Pieces&lt;/b&gt;" in page.text
    assert "<script" not in page.text
    assert "http" not in page.text.replace(app.id, "")


async def test_pages_are_there_with_a_broker_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path))
    app = streamer.App("shop", web_port=0)
    sold: streamer.Table[str, int] = app.Table("sold", default=int)

    @app.agent(name="count")
    async def count(stream: streamer.Stream[str]) -> None:
        async for item in stream:
            sold[item] += 1

    async with app:
        await count.send(value="tea")
        await until(lambda: sold["tea"] == 1)
        assert (await get(app, "/table/sold/tea")).json["value"] == 1


async def test_a_worker_that_comes_back_has_its_port_again(tmp_path: Path) -> None:
    kept = tmp_path / "web-port"
    first = WebServer.bind("127.0.0.1", 0, kept)
    await first.stop()

    again = WebServer.bind("127.0.0.1", 0, kept)
    other = WebServer.bind("127.0.0.1", 0, kept)

    assert again.port == first.port
    assert other.port != first.port, "somebody else has it"
    await again.stop()
    await other.stop()


async def test_a_port_that_cannot_be_kept_is_served_all_the_same(tmp_path: Path) -> None:
    server = WebServer.bind("127.0.0.1", 0, tmp_path / "not-there" / "web-port")

    assert server.port > 0
    await server.stop()
