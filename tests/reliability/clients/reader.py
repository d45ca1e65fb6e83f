"""A member of a group that reads the output and commits what it has read."""

from __future__ import annotations

from confluent_kafka import KafkaException
from reliability.clients.command import Command, Stop, command
from reliability.clients.member import Member, next_positions
from reliability.plan import OUTPUT, group_of
from support.history.events import Committed, Committing, Journal

AT_ONCE = 200


def run(told: Command, stop: Stop) -> None:
    journal = Journal(told.journal, told.client)
    group = group_of(told.name)
    member = Member(told, journal, group, OUTPUT)
    while not stop:
        positions = next_positions(member.read(AT_ONCE))
        if not positions:
            continue
        journal.write(Committing, group=group, positions=positions)
        try:
            member.commit(positions)
        except KafkaException:
            continue  # expelled, or the broker is away: the next commit covers this one
        journal.write(Committed, group=group, positions=positions)
    member.close()


if __name__ == "__main__":
    run(command(), Stop())
