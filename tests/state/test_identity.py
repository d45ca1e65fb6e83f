"""Whose a store is, and whether it is used or rebuilt: a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamer.state.identity import Identity, Verdict, judge

HOUR = 3_600_000
NOW = 1_700_000_000_000

OURS = Identity(
    app="shop",
    table="sold",
    partition=3,
    partitions=4,
    changelog="shop-sold-changelog",
    changelog_id="id-1",
    value_type='"int"',
    in_step_ms=NOW,
)


def judged(
    found: Identity | None,
    *,
    position: int | None = 100,
    begin: int = 0,
    end: int = 200,
    delete_retention_ms: int = 24 * HOUR,
) -> Verdict:
    return judge(
        found,
        OURS,
        position=position,
        now_ms=NOW,
        changelog_begin=begin,
        changelog_end=end,
        delete_retention_ms=delete_retention_ms,
    )


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (OURS, {}),
        (OURS, {"position": 0}),
        (OURS, {"position": 200}),
        (OURS, {"begin": 100}),
        # Never written to: there is nothing that could be wrong.
        (None, {"position": None}),
        (OURS, {"position": None, "begin": 50}),
        # Where the broker does not tell, or did not.
        (replace(OURS, changelog_id=None), {}),
        # Old, but not too old; or old, and nothing has happened since.
        (replace(OURS, in_step_ms=NOW - 12 * HOUR), {}),
        (replace(OURS, in_step_ms=NOW - 1000 * HOUR), {"position": 200}),
        (replace(OURS, in_step_ms=NOW + 12 * HOUR), {}),
    ],
)
def test_a_store_of_ours_is_kept(found: Identity | None, where: dict[str, int]) -> None:
    assert judged(found, **where) == Verdict(keep=True)


@pytest.mark.parametrize(
    ("found", "where", "because"),
    [
        (None, {}, "it was written in a format that this version does not know"),
        (
            replace(OURS, app="shop-v2"),
            {},
            "it belongs to app 'shop-v2', not to app 'shop'",
        ),
        (replace(OURS, table="sales"), {}, "to table 'sales', not to table 'sold'"),
        (replace(OURS, partition=2), {}, "to partition 2, not to partition 3"),
        (replace(OURS, partitions=6), {}, "a table of 6 partitions, not to a table of 4"),
        (replace(OURS, changelog="x"), {}, "changelog x, not to changelog shop-sold-chan"),
        (
            replace(OURS, changelog_id="id-0"),
            {},
            "id id-0, not to a topic with the id id-1",
        ),
        (
            OURS,
            {"position": 201},
            "is at offset 201 of shop-sold-changelog, which ends at 200",
        ),
        (OURS, {"begin": 101}, "at offset 100 of shop-sold-changelog, which begins at 101"),
        (replace(OURS, in_step_ms=NOW - 13 * HOUR), {}, "up to date 13.0 hours ago"),
        (replace(OURS, in_step_ms=NOW + 13 * HOUR), {}, "up to date 13.0 hours ago"),
        (
            replace(OURS, in_step_ms=NOW - 2 * HOUR),
            {"delete_retention_ms": 3 * HOUR},
            "forgets what was deleted after 3.0 hours",
        ),
        (replace(OURS, in_step_ms=NOW - 1), {"delete_retention_ms": 0}, "after 0.0 hours"),
    ],
)
def test_another_is_rebuilt_and_it_is_said_why(
    found: Identity | None, where: dict[str, int], because: str
) -> None:
    verdict = judged(found, **where)

    assert not verdict.keep
    assert verdict.because.startswith(
        "The state of table 'sold', partition 3 is rebuilt: it "
    )
    assert because in verdict.because


def test_another_type_of_values_is_said_but_read_on() -> None:
    """The changelog holds the same bytes: rebuilding would not change them."""
    verdict = judged(replace(OURS, value_type='{"count":"int"}'))

    assert verdict.keep
    assert '{"count":"int"}; from now on they are read as "int"' in verdict.because


def test_an_identity_is_read_as_it_was_written() -> None:
    assert Identity.decode(OURS.encode()) == OURS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"\xff",
        b'{"format":1}',
        OURS.encode().replace(b'"format":1', b'"format":2'),
    ],
)
def test_an_identity_of_another_format_is_not_known(data: bytes) -> None:
    assert Identity.decode(data) is None
