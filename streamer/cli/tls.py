"""TLS by librdkafka's settings, for connections that are not librdkafka's."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamer.client.interface import NotLetIn


def context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """Whom to trust, and our own certificate; without either, what the system trusts."""
    authority = settings.get("ssl.ca.location")
    text = settings.get("ssl.ca.pem")
    try:
        made = ssl.create_default_context(
            cafile=None if authority is None or Path(authority).is_dir() else authority,
            capath=authority if authority and Path(authority).is_dir() else None,
            cadata=text,
        )
    except (OSError, ssl.SSLError) as error:
        raise _unusable("ssl.ca.location", authority or "ssl.ca.pem", error) from None
    if settings.get("ssl.endpoint.identification.algorithm") == "none":
        made.check_hostname = False
    with _file(settings, "ssl.certificate") as ours, _file(settings, "ssl.key") as key:
        if ours is None:
            return made
        try:
            made.load_cert_chain(ours, key, settings.get("ssl.key.password") or "")
        except (OSError, ssl.SSLError) as error:
            raise _unusable("ssl.certificate.location", ours, error) from None
    return made


@contextmanager
def _file(settings: Mapping[str, Any], what: str) -> Iterator[str | None]:
    """Where it is. What is written out goes to a file, since Python reads no other."""
    text = settings.get(f"{what}.pem")
    if text is None:
        yield settings.get(f"{what}.location")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name


def _unusable(name: str, value: str, error: Exception) -> NotLetIn:
    return NotLetIn(
        f"{name} {value} cannot be used: {error}.",
        remedy="Name files in PEM that can be read: ssl.ca.location, and for a certificate"
        " of ours ssl.certificate.location, ssl.key.location and ssl.key.password.",
    )
