"""What a client says to show who it is, held against the examples of the RFCs.

Whether brokers are content with it is seen in `worker/test_secured.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from streamer.cli.sasl import Conversation, Distrusted, conversation, scram
from streamer.client.interface import NotLetIn

# RFC 7677, section 3.
NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = (
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
PROOF = (
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
VERIFIER = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def said(steps: Conversation, *answers: str) -> list[str]:
    """What the client says, answered in turn; it must then be content."""
    words, left = [next(steps).decode()], list(answers)
    while left:
        try:
            words.append(steps.send(left.pop(0).encode()).decode())
        except StopIteration:
            assert not left
            return words
    raise AssertionError(f"it is not content: {words}")


def test_a_password_is_proved_as_the_rfc_has_it() -> None:
    steps = scram("sha256", "user", "pencil", NONCE)

    assert said(steps, CHALLENGE, VERIFIER) == [f"n,,n=user,r={NONCE}", PROOF]


def test_a_name_may_have_any_characters() -> None:
    assert (
        next(scram("sha256", "a=b,c", "x", NONCE)) == f"n,,n=a=3Db=2Cc,r={NONCE}".encode()
    )


@pytest.mark.parametrize(
    "answers",
    [
        [CHALLENGE, "v=AAAA"],
        [CHALLENGE.replace(NONCE, "another")],
        [CHALLENGE.replace("i=4096", "i=1")],
    ],
    ids=["no password", "another's nonce", "too few iterations"],
)
def test_a_broker_that_does_not_know_the_password_is_not_trusted(
    answers: list[str],
) -> None:
    with pytest.raises(Distrusted):
        said(scram("sha256", "user", "pencil", NONCE), *answers)


def test_a_token_goes_with_what_else_is_to_be_said() -> None:
    settings: dict[str, Any] = {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,pool=p",
        "oauth_cb": lambda _: ("token", 0.0),
    }
    words = "n,,\x01auth=Bearer token\x01logicalCluster=lkc-1\x01pool=p\x01\x01"

    assert said(conversation(settings), "") == [words]
    assert said(conversation(settings), "a complaint", "") == [words, "\x01"]


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"sasl.mechanism": "GSSAPI"}, "SCRAM-SHA-256"),
        ({"sasl.mechanism": "PLAIN", "sasl.username": "shop"}, "STREAMER_SASL_PASSWORD"),
        ({"sasl.mechanism": "OAUTHBEARER"}, "streamer -A APP"),
    ],
)
def test_what_cannot_be_said_is_named_with_the_way_out(
    settings: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(NotLetIn) as caught:
        list(conversation(settings))

    assert remedy in caught.value.remedy
