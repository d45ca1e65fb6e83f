"""`reset`: let the app begin anew, as if it had never run.

    goes    the group and its offsets; changelogs; topics that `group_by` sends through;
            topics for answers; state on this machine
    stays   the app's topics, its agents' topics and its dead letters, with all that is in
            them; they are read again from `auto.offset.reset` on

The app must be stopped, everywhere. Names decide what is whose, and only names that this
app would give: one that an earlier version of the app gave is shown and left alone.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from streamer.app import App
from streamer.cli.app.target import broker_of, pass_app
from streamer.cli.output import say
from streamer.client.file_lock import is_held
from streamer.client.interface import Admin, Group, NoSuchGroup, NoSuchTopic
from streamer.errors import StreamerError
from streamer.state.changelog import topic_name
from streamer.state.slots import LOCK
from streamer.worker.worker import state_dir

LOOK_S = 0.25
MARGIN_S = 3.0


class StillRuns(StreamerError):
    remedy = "Stop every worker of the app, then try again."


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go, and what looks like it and stays."""

    group: str | None
    topics: tuple[str, ...]
    state: Path | None
    left: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.group or self.topics or self.state)

    def lines(self) -> list[str]:
        group = [f"group {self.group}, with its offsets"] if self.group else []
        state = [f"folder {self.state}"] if self.state else []
        return group + [f"topic {name}" for name in self.topics] + state


@click.command("reset")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_app
def reset_command(app: App, dry_run: bool, yes: bool) -> None:
    """Forget offsets, tables and all else that the app has made for itself.

    Records of its own topics stay, and are read again from the start. The app must be
    stopped. State on other machines stays there; it is noticed as old, and not used.

    \b
    Examples:
      streamer -A shop reset --dry-run
      streamer -A shop reset --yes
    """
    state = state_dir(app)
    if not dry_run:
        check_no_slot_is_held(state)
    with broker_of(app) as broker:
        plan = planned(app, broker.admin, state)
        for name in plan.left:
            say(f"Left alone, since no table of this app has that name: topic {name}")
        if plan.is_empty:
            say(f"{app.conf.id} has nothing to forget.")
            return
        for line in plan.lines():
            click.echo(line)
        if dry_run:
            return
        if not yes:
            click.confirm("Delete all this?", abort=True, err=True)
        wait_until_empty(broker.admin, app.conf.id, app.conf.session_timeout_ms / 1000)
        carry_out(plan, broker.admin)
    say(f"{app.conf.id} begins anew when it is started.")


def planned(app: App, admin: Admin, state: Path) -> Plan:
    """What the app has made for itself."""
    id, group = app.conf.id, _group(admin, app.conf.id)
    there = [topic.name for topic in admin.cluster().topics]
    read_by_group = {at.topic for at in admin.committed(id)} if group else set()
    changelogs = {topic_name(id, table) for table in app.tables}
    repartition = _repartition(app, read_by_group)
    # What the user has named is the user's, whatever it looks like.
    own = {*app.topics, *(one for a in app.agents.values() for one in a.topic.topics)}
    gone = [
        name
        for name in there
        if name not in own
        and (name in changelogs or repartition(name) or _is_for_answers(id, name))
    ]
    left = [
        name
        for name in there
        if name.startswith(f"{id}-") and name.endswith("-changelog") and name not in gone
    ]
    return Plan(
        group=id if group else None,
        topics=tuple(gone),
        state=state if state.is_dir() else None,
        left=tuple(name for name in left if name not in own),
    )


def _repartition(app: App, read_by_group: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is one that `group_by` of one of the agents would give."""
    id, read = app.conf.id, set(read_by_group)
    prefixes = tuple(f"{id}-{agent}-" for agent in app.agents)

    def check(name: str) -> bool:
        return name.endswith("-repartition") and (
            name.startswith(prefixes) or (name.startswith(f"{id}-") and name in read)
        )

    return check


def _is_for_answers(id: str, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(id)}-replies-(\d+|[0-9a-f]{{12}})", name) is not None


def _group(admin: Admin, name: str) -> Group | None:
    try:
        return admin.group(name)
    except NoSuchGroup:
        return None


def check_no_slot_is_held(state: Path) -> None:
    """A worker of this machine locks its slot."""
    for lock in state.glob(f"slot-*/{LOCK}"):
        if is_held(lock):
            who = lock.read_text().strip()
            raise StillRuns(f"A worker runs here: process {who} has {lock.parent}.")


def wait_until_empty(
    admin: Admin,
    name: str,
    session_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Members that have ended are in the group until their session times out."""
    until, told = clock() + session_s + MARGIN_S, False
    while (group := _group(admin, name)) is not None and group.members:
        if clock() > until:
            who = ", ".join(f"{one.client_id} ({one.host})" for one in group.members)
            raise StillRuns(f"{name} runs: {who}.")
        if not told:
            told = True
            say(f"Waiting up to {session_s:g} s, until it is clear that no worker runs ...")
        sleep(LOOK_S)


def carry_out(plan: Plan, admin: Admin) -> None:
    """The group first: without it, whatever is left half done is done by a second reset."""
    if plan.group:
        try:
            admin.delete_group(plan.group)
        except NoSuchGroup:
            pass
    for name in plan.topics:
        try:
            admin.delete_topics([name])
        except NoSuchTopic:
            pass
    if plan.state:
        shutil.rmtree(plan.state)
