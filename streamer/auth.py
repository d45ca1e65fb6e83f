"""Who we are to a broker, under Faust's names: `App(broker_credentials=...)`.

    SASLCredentials(username="shop", password="...", mechanism="SCRAM-SHA-256", ssl=True)
    SSLCredentials(cafile="ca.pem", certfile="shop.pem", keyfile="shop.key")
    OAuthCredentials(token_endpoint_url="https://...", client_id="...", client_secret="...")

Each is a few settings of librdkafka and no more: what is set in a file or by a variable
(`sasl.password`, STREAMER_SASL_PASSWORD) does the same, and keeps secrets out of the code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamer.errors import SettingsError

Token = tuple[str, float]
"""What a broker is shown, and when it ends, in seconds since 1970."""


class Credentials(ABC):
    """Any of those below."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The same by librdkafka's names."""

    @property
    def token(self) -> Callable[[str], Token] | None:
        """Gives a token, if it is code that does so."""
        return None


@dataclass(frozen=True, slots=True)
class SSLCredentials(Credentials):
    """TLS: whom to trust, and our own certificate if the broker asks for one."""

    context: Any = None
    cafile: str | None = None
    capath: str | None = None
    cadata: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _refuse_context(self.context)

    def settings(self) -> dict[str, str]:
        given = {
            "security.protocol": "SSL",
            "ssl.ca.location": self.cafile or self.capath,
            "ssl.ca.pem": self.cadata,
            "ssl.certificate.location": self.certfile,
            "ssl.key.location": self.keyfile,
            "ssl.key.password": self.password,
        }
        return {name: text for name, text in given.items() if text}


@dataclass(frozen=True, slots=True, kw_only=True)
class SASLCredentials(Credentials):
    """A name and its password, by default as they are (PLAIN), which wants `ssl`."""

    username: str
    password: str = field(repr=False)
    mechanism: str = "PLAIN"
    ssl: bool | SSLCredentials = False
    ssl_context: Any = None

    def __post_init__(self) -> None:
        _refuse_context(self.ssl_context)

    def settings(self) -> dict[str, str]:
        return {
            **_transport(self.ssl),
            # Faust has an enum of them.
            "sasl.mechanism": str(getattr(self.mechanism, "value", self.mechanism)),
            "sasl.username": self.username,
            "sasl.password": self.password,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthCredentials(Credentials):
    """A token: from an endpoint that librdkafka asks (OIDC), or from a function.

    `oauth_cb(config)` is called in a thread of librdkafka and gives the token and the time
    at which it ends.
    """

    oauth_cb: Callable[[str], Token] | None = None
    token_endpoint_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scope: str | None = None
    ssl: bool | SSLCredentials = True
    ssl_context: Any = None

    def __post_init__(self) -> None:
        _refuse_context(self.ssl_context)
        if (self.oauth_cb is None) == (self.token_endpoint_url is None):
            raise SettingsError(
                "OAuthCredentials take a token either from a function or an endpoint.",
                remedy="Give oauth_cb=..., or token_endpoint_url=..., not both.",
            )
        if self.oauth_cb is not None and not callable(self.oauth_cb):
            raise SettingsError(
                f"oauth_cb = {self.oauth_cb!r} cannot be called.",
                remedy="Give a function: def token(config): return (text, ends_at).",
            )

    @property
    def token(self) -> Callable[[str], Token] | None:
        return self.oauth_cb

    def settings(self) -> dict[str, str]:
        given = {
            **_transport(self.ssl),
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc" if self.oauth_cb is None else None,
            "sasl.oauthbearer.token.endpoint.url": self.token_endpoint_url,
            "sasl.oauthbearer.client.id": self.client_id,
            "sasl.oauthbearer.client.secret": self.client_secret,
            "sasl.oauthbearer.scope": self.scope,
        }
        return {name: text for name, text in given.items() if text}


def _transport(ssl: bool | SSLCredentials) -> dict[str, str]:
    files = ssl.settings() if isinstance(ssl, SSLCredentials) else {}
    return files | {"security.protocol": "SASL_SSL" if ssl else "SASL_PLAINTEXT"}


def _refuse_context(context: Any) -> None:
    if context is not None:
        raise SettingsError(
            "The client, librdkafka, has a TLS of its own and takes no ssl.SSLContext.",
            remedy="Name the files: SSLCredentials(cafile=..., certfile=..., keyfile=...); "
            "with SASL, ssl=True trusts what the system trusts.",
        )
