"""Apps and commands on an Apache Kafka that asks who they are, with TLS on the way.

The broker and its certificates are in `support/secured.py`. What an app has done is looked
at by the broker's port that asks for nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from support.apps import Bench, commit_fails, values
from support.clients import new_name, result
from support.secured import PASSWORD, USER, Secured, secured_kafka, token_for

import streamer
from streamer.auth import Credentials
from streamer.cli.direct import Connection
from streamer.cli.main import main
from streamer.client.confluent import admin, member
from streamer.client.interface import BrokerUnavailable, NotLetIn
from streamer.worker import pump

pytestmark = pytest.mark.kafka

# Until whoever is not let in must have been told so.
BOUND_S = 20.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture
def bench(
    kafka: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setenv("STREAMER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pump, "WAIT_S", 0.02)
    bench = Bench(kafka.plain, tmp_path)
    yield bench
    bench.close()


@dataclass(frozen=True, slots=True)
class Way:
    """A way in: the address, and who we are, in code and by Kafka's names."""

    broker: str
    credentials: Credentials
    settings: Mapping[str, str]


def by_password(kafka: Secured, mechanism: str, password: str = PASSWORD) -> Way:
    trusted = streamer.SSLCredentials(cafile=kafka.certificates.authority)
    return Way(
        kafka.sasl,
        streamer.SASLCredentials(
            username=USER, password=password, mechanism=mechanism, ssl=trusted
        ),
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": USER,
            "sasl.password": password,
            "ssl.ca.location": kafka.certificates.authority,
        },
    )


def by_certificate(kafka: Secured) -> Way:
    files = kafka.certificates
    return Way(
        kafka.mutual,
        streamer.SSLCredentials(
            cafile=files.authority, certfile=files.client, keyfile=files.client_key
        ),
        {
            "security.protocol": "SSL",
            "ssl.ca.location": files.authority,
            "ssl.certificate.location": files.client,
            "ssl.key.location": files.client_key,
        },
    )


def by_token(
    kafka: Secured, give: Callable[[str], tuple[str, float]] = lambda _: token_for(USER)
) -> Way:
    trusted = streamer.SSLCredentials(cafile=kafka.certificates.authority)
    return Way(
        kafka.sasl, streamer.OAuthCredentials(oauth_cb=give, ssl=trusted), settings={}
    )


WAYS: dict[str, Callable[[Secured], Way]] = {
    "certificate": by_certificate,
    "PLAIN": lambda kafka: by_password(kafka, "PLAIN"),
    "SCRAM-SHA-256": lambda kafka: by_password(kafka, "SCRAM-SHA-256"),
    "SCRAM-SHA-512": lambda kafka: by_password(kafka, "SCRAM-SHA-512"),
    "OAUTHBEARER": by_token,
}
WITHOUT_CODE = [name for name in WAYS if name != "OAUTHBEARER"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, kafka: Secured) -> Way:
    return WAYS[request.param](kafka)


def counting(bench: Bench, way: Way, topic: str, out: str, **settings: Any) -> streamer.App:
    """An app that counts words in a table and tells each count."""
    app = bench.app(
        f"counts-{topic}",
        broker=way.broker,
        broker_credentials=way.credentials,
        **settings,
    )
    counts = app.Table("counts", default=int, key_type=str)
    told = app.topic(out, key_type=str, value_type=int)

    @app.agent(app.topic(topic, value_type=str))
    async def count(words: streamer.Stream[str]) -> None:
        async for word in words:
            counts[word] += 1
            await told.send(key=word, value=counts[word])

    return app


async def test_an_app_that_shows_who_it_is_counts_exactly_once(
    bench: Bench, way: Way
) -> None:
    topic, out = await bench.topic(), await bench.topic()
    await bench.send(topic, "red", "blue", "red")

    async with counting(bench, way, topic, out) as app:
        assert values(await bench.outputs(out, 3)) == [1, 1, 2]
        with commit_fails(app):
            await bench.send(topic, "red")
            await bench.outputs(out, 4)

    # Nothing is left of the state but its changelog, which is read by the same way in.
    await bench.send(topic, "red")
    async with counting(bench, way, topic, out, state_dir=str(bench.folder / "new")):
        assert values(await bench.outputs(out, 5)) == [1, 1, 2, 3, 4]


async def test_a_worker_goes_on_when_it_is_asked_again_who_it_is(
    bench: Bench, kafka: Secured
) -> None:
    topic, out = await bench.topic(), await bench.topic()
    way = by_password(kafka, "SCRAM-SHA-512")

    async with counting(bench, way, topic, out):
        for number in range(1, 7):
            await bench.send(topic, "red")
            assert values(await bench.outputs(out, number))[-1] == number
            await asyncio.sleep(1)


# The command line.


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`streamer WORDS`, with a way in by the environment."""

    def call(way: Way, *words: str, stdin: str = "") -> Result:
        environment = as_environment(way)
        return CliRunner(env=environment).invoke(main, words, input=stdin)

    return call


def as_environment(way: Way) -> dict[str, str]:
    given = {"broker": way.broker, **way.settings}
    return {
        f"STREAMER_{name.upper().replace('.', '_')}": text for name, text in given.items()
    }


@pytest.mark.parametrize("name", WITHOUT_CODE)
def test_commands_get_in_by_the_settings_of_workers(
    name: str, kafka: Secured, bench: Bench, tools: Callable[..., Result]
) -> None:
    way, topic, group = WAYS[name](kafka), new_name(), new_name("group")

    def ok(*words: str, stdin: str = "") -> str:
        done = tools(way, *words, stdin=stdin)
        assert done.exit_code == 0, done.output
        return done.stdout

    ok("topic", "create", topic, "-p", "1")
    assert topic in ok("topic", "list")
    ok("produce", topic, "-f", "%k %v", stdin="alice apples\nbob pears\n")
    assert ok("consume", topic, "-e", "-f", "%k %v\\n") == "alice apples\nbob pears\n"
    assert ok("consume", topic, "-g", group, "-n", "2") == "apples\npears\n"
    assert group in ok("group", "list")
    assert "2" in ok("group", "describe", group)
    ok("txn", "list")
    assert "Apache Kafka" in ok("cluster")


APP = """
import streamer
from support.secured import token_for

app = streamer.App({name!r}{more})
words = app.topic({topic!r}, value_type=str, partitions=1)
counts = app.Table("counts", default=int, key_type=str)

@app.agent(words)
async def count(stream):
    async for word in stream:
        counts[word] += 1
"""
CREDENTIALS = """,
    broker={broker!r},
    broker_credentials=streamer.OAuthCredentials(
        oauth_cb=lambda _: token_for("shop"), ssl=streamer.SSLCredentials(cafile={cafile!r})
    ),
"""


class Shop:
    """An app in a file of a folder of its own, and its command line."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.topic = new_name()
        self.folder = folder
        self.environment = dict(os.environ)
        # For the tokens.
        self.environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        text = APP.format(name=new_name("shop"), topic=self.topic, more=more)
        (folder / "shop.py").write_text(text)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streamer", "-A", "shop", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        with self.start(*words) as process:
            try:
                out, err = process.communicate(timeout=BOUND_S)
            finally:
                process.kill()
        return process.returncode, out, err

    def ok(self, *words: str) -> str:
        code, out, err = self.run(*words)
        assert code == 0, err
        return out


def counted_by_a_worker(shop: Shop) -> None:
    """A worker, records sent to it, and what its table then says."""
    worker = shop.start("worker", "--web-port", "0")
    try:
        shop.ok("send", shop.topic, "red", "--repeat", "2")
        until_s = time.monotonic() + BOUND_S
        while (found := shop.run("table", "get", "counts", "red"))[1] != "2\n":
            assert time.monotonic() < until_s, found
        worker.terminate()
        _, said = worker.communicate(timeout=BOUND_S)
        assert worker.returncode == 0, said
    finally:
        worker.kill()
        worker.communicate()


def test_a_worker_gets_in_by_variables(bench: Bench, kafka: Secured) -> None:
    shop = Shop(bench.folder)
    shop.environment |= as_environment(by_password(kafka, "SCRAM-SHA-256"))

    counted_by_a_worker(shop)


def test_a_worker_and_commands_get_in_by_a_file(bench: Bench, kafka: Secured) -> None:
    way, shop = by_certificate(kafka), Shop(bench.folder)
    lines = [f'{name} = "{text}"' for name, text in way.settings.items()]
    (bench.folder / "streamer.toml").write_text(
        "\n".join(["[app]", f'broker = "{way.broker}"', "linger.ms = 1", *lines])
    )

    counted_by_a_worker(shop)
    found = subprocess.run(
        [sys.executable, "-m", "streamer", "consume", shop.topic, "-e"],
        cwd=bench.folder,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )

    assert found.stdout == "red\n" * 2, found.stderr


def test_commands_get_in_as_the_app_that_is_named(bench: Bench, kafka: Secured) -> None:
    cafile = kafka.certificates.authority
    shop = Shop(bench.folder, CREDENTIALS.format(broker=kafka.sasl, cafile=cafile))

    counted_by_a_worker(shop)

    assert shop.topic in shop.ok("topic", "list")
    assert shop.ok("consume", shop.topic, "-e") == "red\n" * 2
    assert "CompleteCommit" in shop.ok("txn", "list")


# Who is not let in.


def rubbish(_: str) -> tuple[str, float]:
    return "rubbish", token_for(USER)[1]


def too_late(_: str) -> tuple[str, float]:
    return token_for(USER)[0], 3600.0


def out_of_order(_: str) -> tuple[str, float]:
    raise ConnectionError("the identity provider is away")


def with_other(way: Way, **settings: str | None) -> Way:
    """The same way, with other settings: what is None is left out."""
    changed = {name.replace("_", "."): text for name, text in settings.items()}
    given = {**way.settings, **changed}
    return replace(way, settings={name: text for name, text in given.items() if text})


WRONG: dict[str, tuple[Callable[[Secured], Way], str, str]] = {
    mechanism: (
        lambda kafka, mechanism=mechanism: by_password(kafka, mechanism, "guessed"),
        "[Aa]uthentication failed",
        "sasl.password",
    )
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
} | {
    "no such mechanism": (
        lambda kafka: by_password(kafka, "SCRAM-SHA-1"),
        "Unsupported SASL mechanism",
        "Set sasl.mechanism",
    ),
    "a token that is none": (
        lambda kafka: by_token(kafka, rubbish),
        "invalid_token",
        "oauth_cb",
    ),
    "a token that has ended": (
        lambda kafka: by_token(kafka, too_late),
        "has ended",
        "in seconds since 1970",
    ),
    "no token": (
        lambda kafka: by_token(kafka, out_of_order),
        "the identity provider is away",
        "when it ends",
    ),
    "a broker that is not trusted": (
        lambda kafka: with_other(
            by_certificate(kafka), ssl_ca_location=kafka.certificates.stranger
        ),
        "certificate verify failed",
        "Set ssl.ca.location",
    ),
    "no certificate": (
        lambda kafka: with_other(
            by_certificate(kafka), ssl_certificate_location=None, ssl_key_location=None
        ),
        "alert",
        "set ssl.certificate.location",
    ),
    "no TLS there": (
        lambda kafka: replace(by_certificate(kafka), broker=kafka.plain),
        "PLAINTEXT",
        "leave out security.protocol",
    ),
    "no password there": (
        lambda kafka: with_other(
            replace(by_password(kafka, "PLAIN"), broker=kafka.plain),
            security_protocol="SASL_PLAINTEXT",
            ssl_ca_location=None,
        ),
        "SASL state",
        "asks for no password",
    ),
}
BY_CODE = ("a token that is none", "a token that has ended", "no token")


@pytest.mark.parametrize("case", WRONG)
async def test_a_worker_that_is_not_let_in_says_why_and_ends(
    case: str, kafka: Secured, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "METADATA_S", 1.5)
    make, problem, remedy = WRONG[case]
    way = make(kafka)
    given: dict[str, Any] = (
        {"broker_credentials": way.credentials}
        if case in BY_CODE
        else {name.replace(".", "_"): text for name, text in way.settings.items()}
    )
    app = bench.app(broker=way.broker, **given)

    with pytest.raises(NotLetIn, match=problem) as caught:
        async with asyncio.timeout(BOUND_S), app:
            pass

    assert remedy in caught.value.remedy


@pytest.mark.parametrize("case", [case for case in WRONG if case not in BY_CODE])
def test_a_connection_of_our_own_that_is_not_let_in_says_so(
    case: str, kafka: Secured
) -> None:
    way = WRONG[case][0](kafka)

    with pytest.raises(NotLetIn, match=way.broker):
        Connection(way.broker, way.settings)


def test_whoever_asks_for_no_topics_is_told_too(
    kafka: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "METADATA_S", 1.5)
    way = by_password(kafka, "PLAIN", "guessed")

    with pytest.raises(NotLetIn, match="Invalid username or password"):
        admin.ConfluentAdmin(way.broker, way.settings).groups()


async def test_a_worker_that_asks_for_no_tls_where_it_must_is_told_of_it(
    kafka: Secured, bench: Bench
) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        async with asyncio.timeout(BOUND_S), bench.app(broker=kafka.sasl):
            pass

    assert "security.protocol=SSL or SASL_SSL" in caught.value.remedy


def test_whoever_only_sends_is_told_too(bench: Bench, kafka: Secured) -> None:
    shop = Shop(bench.folder)
    shop.environment |= as_environment(by_password(kafka, "PLAIN", "guessed"))

    for words in (["send", shop.topic, "red"], ["worker", "--without-web"]):
        code, _, said = shop.run(*words)

        assert code == 1, said
        assert "Invalid username or password" in said
        assert "-> Set sasl.username and sasl.password" in said


async def test_a_worker_whose_password_is_taken_away_ends(
    bench: Bench, kafka: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "REFUSED_S", 2.0)
    topic, out = await bench.topic(), await bench.topic()
    users = AdminClient({"bootstrap.servers": kafka.plain})
    mechanism = ScramMechanism.SCRAM_SHA_512
    taken = UserScramCredentialDeletion(USER, mechanism)
    given = UserScramCredentialUpsertion(
        USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
    )

    async with counting(bench, by_password(kafka, "SCRAM-SHA-512"), topic, out) as app:
        await bench.send(topic, "red")
        await bench.outputs(out, 1)
        result(users.alter_user_scram_credentials([taken])[USER])
        try:
            with pytest.raises(NotLetIn, match="SCRAM-SHA-512"):
                await asyncio.wait_for(app.wait(), BOUND_S)
        finally:
            result(users.alter_user_scram_credentials([given])[USER])
