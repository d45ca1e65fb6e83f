"""Changelog topics: made, looked at, or asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from support.clients import new_name

from streamer.cli.main import main
from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.interface import Admin, ClientError, Topic
from streamer.state.changelog import (
    Changelog,
    MissingChangelogs,
    WrongPartitions,
    WrongPolicy,
    delete_retention_ms,
    ensure,
)

DAY = 24 * 3_600_000


@pytest.fixture(scope="module")
def admin(bootstrap: str) -> ConfluentAdmin:
    return ConfluentAdmin(bootstrap)


@pytest.fixture
def plain(admin: ConfluentAdmin) -> Iterator[Changelog]:
    changelog = Changelog(app=new_name("app"), table="sold", partitions=3)
    yield changelog
    remove(admin, changelog)


@pytest.fixture
def windowed(admin: ConfluentAdmin) -> Iterator[Changelog]:
    changelog = Changelog(
        app=new_name("app"), table="hourly", partitions=1, window_retention_ms=1000
    )
    yield changelog
    remove(admin, changelog)


def remove(admin: ConfluentAdmin, changelog: Changelog) -> None:
    if changelog.topic in {topic.name for topic in admin.cluster().topics}:
        admin.delete_topics([changelog.topic])


def made(
    admin: ConfluentAdmin, changelog: Changelog, partitions: int, **configs: str
) -> None:
    admin.create_topic(
        changelog.topic,
        partitions=partitions,
        replication=-1,
        configs={name.replace("_", "."): value for name, value in configs.items()},
    )


def configs_of(admin: ConfluentAdmin, changelog: Changelog) -> dict[str, str | None]:
    return {entry.name: entry.value for entry in admin.topic_configs(changelog.topic)}


def test_a_changelog_is_named_for_app_and_table() -> None:
    assert Changelog(app="shop", table="sold", partitions=1).topic == "shop-sold-changelog"


def test_what_is_missing_is_made_once(admin: ConfluentAdmin, plain: Changelog) -> None:
    assert ensure(admin, [plain]) == [plain]
    assert ensure(admin, [plain]) == []

    assert len(admin.topic(plain.topic).partitions) == 3
    assert configs_of(admin, plain)["cleanup.policy"] == "compact"


def test_windows_go_with_age(admin: ConfluentAdmin, windowed: Changelog) -> None:
    ensure(admin, [windowed])

    configs = configs_of(admin, windowed)
    assert configs["cleanup.policy"] == "compact,delete"
    assert configs["retention.ms"] == str(1000 + DAY)


def test_what_the_user_wants_comes_last(admin: ConfluentAdmin) -> None:
    extra = {"retention.ms": "5000", "delete.retention.ms": "7000"}
    changelog = Changelog(
        app=new_name("app"), table="t", partitions=1, window_retention_ms=1000, extra=extra
    )
    ensure(admin, [changelog])

    assert configs_of(admin, changelog)["retention.ms"] == "5000"
    assert delete_retention_ms(admin.topic_configs(changelog.topic)) == 7000
    remove(admin, changelog)


def test_a_wrong_number_of_partitions_says_both_and_what_to_do(
    admin: ConfluentAdmin, plain: Changelog
) -> None:
    made(admin, plain, partitions=2, cleanup_policy="compact")

    with pytest.raises(WrongPartitions) as error:
        ensure(admin, [plain])

    assert "has 3 partitions" in error.value.problem
    assert f"{plain.topic} has 2." in error.value.problem
    assert "give those topics 2 partitions again" in error.value.remedy
    assert f"`streamer topic delete {plain.topic}`" in error.value.remedy


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_table_without_windows_is_never_deleted_by_age(
    admin: ConfluentAdmin, plain: Changelog, policy: str
) -> None:
    made(admin, plain, partitions=3, cleanup_policy=policy)

    with pytest.raises(WrongPolicy) as error:
        ensure(admin, [plain])

    assert f"(cleanup.policy={policy})" in error.value.problem
    assert (
        f"streamer topic alter {plain.topic} -c cleanup.policy=compact"
        in error.value.remedy
    )


def test_windows_are_kept_for_as_long_as_they_are_asked_for(
    admin: ConfluentAdmin, windowed: Changelog
) -> None:
    made(admin, windowed, 1, cleanup_policy="compact,delete", retention_ms="999")

    with pytest.raises(WrongPolicy, match="keeps records for 999 ms") as error:
        ensure(admin, [windowed])

    assert f"-c retention.ms={1000 + DAY}" in error.value.remedy


@pytest.mark.parametrize(
    ("policy", "retention"),
    [("compact,delete", "1000"), ("delete,compact", "-1"), ("compact", "1")],
)
def test_windows_may_be_kept_for_longer(
    admin: ConfluentAdmin, windowed: Changelog, policy: str, retention: str
) -> None:
    made(admin, windowed, 1, cleanup_policy=policy, retention_ms=retention)

    assert ensure(admin, [windowed]) == []


def test_all_that_is_missing_is_listed_with_the_commands_that_make_it(
    bootstrap: str,
    admin: ConfluentAdmin,
    plain: Changelog,
    windowed: Changelog,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(MissingChangelogs) as error:
        ensure(admin, [plain, windowed], create=False)

    assert error.value.missing == (plain, windowed)
    commands = [line.strip() for line in error.value.remedy.splitlines()[1:]]
    assert commands[0] == (
        f"streamer topic create {plain.topic} -p 3 -c cleanup.policy=compact"
    )
    for command in commands:
        words = command.split()[1:]
        with pytest.raises(SystemExit) as ended:
            main([*words, "-b", bootstrap])
        assert not ended.value.code
    assert ensure(admin, [plain, windowed], create=False) == []


class Refusing:
    """An admin who may not make topics, as its broker says."""

    def topic(self, name: str) -> Topic:
        from streamer.client.interface import NoSuchTopic

        raise NoSuchTopic(f"There is no topic {name!r}.")

    def create_topic(self, name: str, **_: object) -> None:
        raise ClientError(f"Creating topic {name!r}: TOPIC_AUTHORIZATION_FAILED.")


def test_a_refusal_lists_them_too(plain: Changelog, windowed: Changelog) -> None:
    with pytest.raises(MissingChangelogs) as error:
        ensure(cast("Admin", Refusing()), [plain, windowed])

    assert "TOPIC_AUTHORIZATION_FAILED" in error.value.problem
    assert plain.command() in error.value.remedy
    assert windowed.command() in error.value.remedy
