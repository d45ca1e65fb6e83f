"""`/`: what runs here, for a person. Plain HTML, nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from streamer.web.view import View

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;"
    "margin-top:2rem}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1.5rem .2rem 0;"
    "border-bottom:1px solid #ddd;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}a{color:#8bf}"
    "td,th{border-color:#444}}"
)
LINKS = ("/healthz", "/readyz", "/metrics", "/table/")


def page(view: View) -> str:
    app = view.app
    standing = view.standing()
    in_hand = {one.name: one for one in standing.agents}
    here: dict[str, list[str]] = {}
    for part in standing.tables:
        here.setdefault(part.name, []).append(str(part.partition))
    agents = [
        (
            escape(agent.name),
            escape(", ".join(agent.get_topic_names())),
            str(in_hand[agent.name].waiting if agent.name in in_hand else 0),
            str(in_hand[agent.name].in_hand if agent.name in in_hand else 0),
            escape(agent.help.strip().split("\n")[0]),
        )
        for agent in app.agents.values()
    ]
    tables = [
        (
            f'<a href="/table/{quote(name, safe="")}">{escape(name)}</a>',
            escape(", ".join(here.get(name, []))),
            escape(table.help),
        )
        for name, table in app.tables.items()
    ]
    topics = [
        (escape(at.topic), str(at.partition), str(position))
        for at, position in sorted(standing.positions.items())
    ]
    pages = [
        (f'<a href="{escape(one.path)}">{escape(one.path)}</a>', escape(one.name))
        if "{" not in one.path
        else (escape(one.path), escape(one.name))
        for one in app.pages
    ]
    state = "ready" if view.ready else "not ready"
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width">',
            f"<title>{escape(app.conf.id)}</title><style>{STYLE}</style>",
            f"<h1>{escape(app.conf.id)}</h1>",
            f"<p>{escape(view.slot_name)}, {escape(app.conf.guarantee.replace('_', ' '))},"
            f" {state}.</p>",
            "<p>" + " · ".join(f'<a href="{path}">{path}</a>' for path in LINKS) + "</p>",
            section("Agents", ("agent", "reads", "waiting", "in hand", ""), agents),
            section("Tables", ("table", "partitions here", ""), tables),
            section("Partitions", ("topic", "partition", "committed"), topics),
            section("Pages", ("path", "function"), pages),
            "</html>",
        ]
    )


def section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML; whoever makes them has escaped what is in them."""
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    if not lines:
        return ""
    heads = "".join(f"<th>{one}</th>" for one in head)
    return f"<h2>{title}</h2><table><tr>{heads}</tr>{''.join(lines)}</table>"
