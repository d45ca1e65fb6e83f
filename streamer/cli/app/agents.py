"""`agents`: what the app does with which topic."""

import click

from streamer.app import App
from streamer.cli.app.target import pass_app
from streamer.cli.output import Column, output_option, show_rows

AGENT_COLUMNS = (
    Column("agent", "agent"),
    Column("topic", "topic"),
    Column("concurrency", "concurrency"),
    Column("help", "help"),
    Column("isolated", "isolated_partitions", wide=True),
)


@click.command("agents")
@output_option
@pass_app
def agents_command(app: App, form: str) -> None:
    """List the agents, each with the topic that it reads.

    \b
    Example: all that `send` can reach as @NAME
      streamer -A shop agents -o json | jq -r '.[].agent'
    """
    rows = [
        {
            "agent": agent.name,
            "topic": ",".join(agent.get_topic_names()),
            "concurrency": agent.concurrency,
            "isolated_partitions": agent.isolated_partitions,
            "help": " ".join(agent.help.split()),
        }
        for agent in app.agents.values()
    ]
    show_rows(rows, AGENT_COLUMNS, form)
