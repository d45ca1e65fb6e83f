"""`config`: the settings of the app, each with the place it comes from."""

import click

from streamer.app import App
from streamer.cli.app.target import pass_app
from streamer.cli.output import Column, output_option, show_rows

CONFIG_COLUMNS = (
    Column("setting", "setting"),
    Column("value", "value"),
    Column("origin", "origin"),
    Column("meaning", "meaning", wide=True),
)


@click.command("config")
@click.option("--changed", is_flag=True, help="Only what is not a default.")
@output_option
@pass_app
def config_command(app: App, changed: bool, form: str) -> None:
    """Show every setting: --set, then STREAMER_..., App(...), streamer.toml, the default.

    \b
    Example: what has been changed, and where
      streamer -A shop config --changed
    """
    from streamer.conf import shown

    rows = [
        {
            "setting": one.option.name,
            "value": shown(one),
            "origin": one.origin,
            "meaning": one.option.doc,
        }
        for one in app.conf
        if not (changed and one.is_default)
    ]
    show_rows(rows, CONFIG_COLUMNS, form)
