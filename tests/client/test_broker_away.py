"""What is asked while the broker is away may fail, and goes well once it is back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.broker import start_streamer
from support.clients import Sent, new_name, produce, wait_until
from support.server import PROMPT

from streamer.client.confluent import consumer
from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.interface import Message, TopicPartition

# librdkafka ends the process when a question for a group has timed out and the broker comes
# back. So whoever asks here is a process of its own.
ASKING = """
import sys
from streamer.client.confluent import admin
from streamer.client.interface import BrokerUnavailable, NoSuchGroup

admin.ADMIN_S = 2.0
# So long, unless something else is said, until librdkafka gives up.
asked = admin.ConfluentAdmin(sys.argv[1], {"socket.timeout.ms": 1000})
for _ in sys.stdin:
    try:
        getattr(asked, sys.argv[2])("nobody")
        print("answered", flush=True)
    except NoSuchGroup:
        print("answered", flush=True)
    except BrokerUnavailable:
        print("away", flush=True)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("question", ["group", "committed", "delete_group"])
def test_a_question_that_nobody_answers_in_time_ends_no_process(
    tmp_path: Path, question: str
) -> None:
    server = start_streamer(tmp_path / "broker", settings=PROMPT)
    process = subprocess.Popen(
        [sys.executable, "-c", ASKING, server.address, question],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def ask() -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("?\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        assert ask() == "answered"
        server.process.send_signal(signal.SIGSTOP)
        assert ask() == "away"
        server.kill()
        assert ask() == "away"
        server = start_streamer(tmp_path / "broker", settings=PROMPT)
        answers = [ask() for _ in range(5)]
    finally:
        process.kill()
        process.communicate()
        server.stop()

    assert answers[-1] == "answered"


@pytest.mark.timeout(60)
def test_what_is_assigned_while_the_broker_is_away_is_read_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "METADATA_S", 0.5)
    server = start_streamer(tmp_path / "broker", settings=PROMPT)
    topic, found = new_name("topic"), list[Message]()
    admin = ConfluentAdmin(server.address)
    admin.create_topic(topic, partitions=1, replication=1, configs={})
    produce(server.address, topic, [Sent(value=b"tea")])
    reading = ConfluentConsumer(server.address)
    server.kill()

    reading.assign({TopicPartition(topic, 0): 0})

    def something_comes() -> bool:
        found.extend(reading.consume(1, 0.1))
        return bool(found)

    with start_streamer(tmp_path / "broker", settings=PROMPT):
        wait_until(something_comes, "nothing comes")
        reading.close()
    assert [one.value() for one in found] == [b"tea"]
