"""Showing a broker who we are: what a client says, step by step, in each mechanism.

A conversation is a generator. It yields what to send and is sent what came back; when it
returns, all is said. It raises `Distrusted` if the broker is not who it should be: by SCRAM
the broker, too, has to show that it knows the password. Nothing is read or sent here: that
is `direct.py`.

    PLAIN           RFC 4616    the name and the password, as they are
    SCRAM-SHA-...   RFC 5802    proof of the password, each to the other
    OAUTHBEARER     RFC 7628    a token that somebody else has made
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Generator, Mapping
from typing import Any

from streamer.client.interface import NotLetIn

Conversation = Generator[bytes, bytes, None]

HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
# Fewer would make a password easy to guess for whoever has listened.
ITERATIONS_MIN = 4096
# RFC 5802: a client that knows nothing of channel binding.
NO_BINDING = "n,,"
SEPARATOR = "\x01"  # of RFC 7628; alone, it ends a conversation that has failed


class Distrusted(NotLetIn):
    remedy = "Somebody may stand between: name the broker itself, and use TLS."


def conversation(settings: Mapping[str, Any]) -> Conversation:
    """The one that the settings, by librdkafka's names, ask for."""
    mechanism = settings["sasl.mechanism"]
    if mechanism == "OAUTHBEARER":
        return bearer(settings)
    if mechanism != "PLAIN" and mechanism not in HASHES:
        raise NotLetIn(
            f"This command knows no sasl.mechanism {mechanism}.",
            remedy=f"Use PLAIN, {', '.join(HASHES)} or OAUTHBEARER.",
        )
    missing = [key for key in ("sasl.username", "sasl.password") if not settings.get(key)]
    if missing:
        raise NotLetIn(
            f"{mechanism} wants {' and '.join(missing)}.",
            remedy="Set STREAMER_SASL_USERNAME and STREAMER_SASL_PASSWORD.",
        )
    user, password = settings["sasl.username"], settings["sasl.password"]
    if mechanism == "PLAIN":
        return plain(user, password)
    return scram(HASHES[mechanism], user, password, secrets.token_hex(16))


def plain(user: str, password: str) -> Conversation:
    yield f"\0{user}\0{password}".encode()


def scram(hash: str, user: str, password: str, nonce: str) -> Conversation:
    """`nonce` must be new each time, and such as nobody can guess."""
    name = user.replace("=", "=3D").replace(",", "=2C")
    hello = f"n={name},r={nonce}"
    challenge = (yield (NO_BINDING + hello).encode()).decode()
    said = _fields(challenge)
    iterations = int(said["i"])
    if not said["r"].startswith(nonce) or iterations < ITERATIONS_MIN:
        raise Distrusted("The broker does not answer what it was asked.")

    def digest(key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, hash)

    salted = hashlib.pbkdf2_hmac(
        hash, password.encode(), base64.b64decode(said["s"]), iterations
    )
    key = digest(salted, b"Client Key")
    last = f"c={base64.b64encode(NO_BINDING.encode()).decode()},r={said['r']}"
    about = f"{hello},{challenge},{last}".encode()
    signature = digest(hashlib.new(hash, key).digest(), about)
    proof = bytes(ours ^ theirs for ours, theirs in zip(key, signature, strict=True))
    answer = yield f"{last},p={base64.b64encode(proof).decode()}".encode()

    expected = digest(digest(salted, b"Server Key"), about)
    if not hmac.compare_digest(base64.b64decode(_fields(answer.decode())["v"]), expected):
        raise Distrusted("The broker does not know the password.")


def _fields(text: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in text.split(",")}


def bearer(settings: Mapping[str, Any]) -> Conversation:
    give = settings.get("oauth_cb")
    if give is None:
        # librdkafka asks endpoints and keeps the answer to itself.
        raise NotLetIn(
            "This command speaks to brokers without librdkafka, and has no token for them.",
            remedy="Name an app with broker_credentials=OAuthCredentials(oauth_cb=...):"
            " `streamer -A APP ...`; or use another sasl.mechanism.",
        )
    try:
        token, _ = give(settings.get("sasl.oauthbearer.config", ""))
    except Exception as error:
        raise NotLetIn(
            f"oauth_cb has failed: {type(error).__name__}: {error}.",
            remedy="Mend that: it takes a text, and gives (token, when it ends).",
        ) from error
    more = settings.get("sasl.oauthbearer.extensions") or ""
    said = [f"auth=Bearer {token}", *filter(None, more.split(","))]
    parts = [NO_BINDING, *said, "", ""]
    complaint = yield SEPARATOR.join(parts).encode()
    if complaint:
        yield SEPARATOR.encode()  # now the broker says that it refuses
