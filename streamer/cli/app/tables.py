"""`tables`: the tables of the app and their changelogs."""

import click

from streamer.app import App
from streamer.cli.app.target import broker_of, pass_app
from streamer.cli.output import Column, output_option, show_rows
from streamer.client.interface import Admin, NoSuchTopic
from streamer.state.changelog import topic_name

TABLE_COLUMNS = (
    Column("table", "table"),
    Column("partitions", "partitions"),
    Column("changes", "changes"),
    Column("changelog", "changelog"),
    Column("help", "help"),
)


@click.command("tables")
@output_option
@pass_app
def tables_command(app: App, form: str) -> None:
    """List the tables, and how many changes of each are kept.

    Old changes of a key are compacted away now and then: in the end there is one for each
    key.

    \b
    Example: all tables, for a program
      streamer -A shop tables -o json
    """
    with broker_of(app) as broker:
        rows = [
            {
                "table": table.name,
                "changelog": (changelog := topic_name(app.conf.id, table.name)),
                "help": " ".join(table.help.split()),
                **_kept(broker.admin, changelog, table.partitions),
            }
            for table in app.tables.values()
        ]
    show_rows(rows, TABLE_COLUMNS, form)


def _kept(admin: Admin, changelog: str, declared: int | None) -> dict[str, int | None]:
    try:
        partitions = admin.topic(changelog).topic_partitions
    except NoSuchTopic:
        return {"partitions": declared, "changes": None}
    begins, ends = admin.first_offsets(partitions), admin.end_offsets(partitions)
    return {
        "partitions": len(partitions),
        "changes": sum(ends[at] - begins[at] for at in partitions),
    }
