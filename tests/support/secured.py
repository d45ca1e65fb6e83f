"""A real Apache Kafka that lets nobody in who cannot show who he is, and TLS on the way.

Its listeners, each a port of its own:

    sasl      TLS; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; by SCRAM-SHA-512
              clients have to say every few seconds who they are
    mutual    TLS; asks for a certificate
    plain     nothing: for the test itself, to see what has come

The authority that has signed all certificates is made anew each time; so is a second one,
which nobody trusts. Tokens of OAUTHBEARER are unsigned: `token_for`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.kafka import free_ports, start_kafka

USER, PASSWORD = "shop", "open-sesame"
MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Secured:
    sasl: str
    mutual: str
    plain: str
    certificates: Certificates


@dataclass(frozen=True, slots=True)
class Certificates:
    folder: Path

    @property
    def authority(self) -> str:
        return str(self.folder / "authority.pem")

    @property
    def stranger(self) -> str:
        """An authority that has signed nothing here."""
        return str(self.folder / "stranger.pem")

    @property
    def client(self) -> str:
        return str(self.folder / "client.pem")

    @property
    def client_key(self) -> str:
        return str(self.folder / "client.key")


@contextmanager
def secured_kafka(directory: Path) -> Iterator[Secured]:
    certificates = make_certificates(directory / "certificates")
    sasl, mutual = free_ports(2)
    with start_kafka(
        directory / "kafka",
        settings=settings(certificates.folder),
        listeners={"SASL": sasl, "MUTUAL": mutual},
        formatted_with=[
            word
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("-S", f'{mechanism}=[name="{USER}",password="{PASSWORD}"]')
        ],
    ) as server:
        yield Secured(
            f"127.0.0.1:{sasl}", f"127.0.0.1:{mutual}", server.address, certificates
        )


def settings(certificates: Path) -> dict[str, str]:
    sasl = "listener.name.sasl"
    return {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "SASL:SASL_SSL,MUTUAL:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "broker-and-key.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "authority.pem"),
        "listener.name.mutual.ssl.client.auth": "required",
        f"{sasl}.sasl.enabled.mechanisms": MECHANISMS,
        f"{sasl}.plain.sasl.jaas.config": f"{MODULES}.plain.PlainLoginModule required "
        f'user_{USER}="{PASSWORD}";',
        f"{sasl}.scram-sha-256.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule "
        "required;",
        f"{sasl}.scram-sha-512.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule "
        "required;",
        f"{sasl}.scram-sha-512.connections.max.reauth.ms": "3000",
        # It takes any token that is well-formed and not too old.
        f"{sasl}.oauthbearer.sasl.jaas.config": f"{MODULES}.oauthbearer."
        'OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
    }


def make_certificates(folder: Path) -> Certificates:
    """Authorities, and certificates for the broker and for a client, in PEM."""
    folder.mkdir(parents=True)
    for authority in ("authority", "stranger"):
        openssl(
            folder,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", f"{authority}.key", "-out", f"{authority}.pem"),
            *("-days", "2", "-subj", f"/CN={authority}"),
        )
    for name in ("broker", "client"):
        openssl(
            folder,
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2"),
            *("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"),
            *("-extfile", "names"),
        )
    both = (folder / "broker.key").read_text() + (folder / "broker.pem").read_text()
    (folder / "broker-and-key.pem").write_text(both)
    return Certificates(folder)


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def token_for(user: str) -> tuple[str, float]:
    """An unsigned token, and when it ends."""
    now = time.time_ns() // 1_000_000_000
    ends = now + 3600
    claims = {"sub": user, "iat": now, "exp": ends}
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, claims)
    )
    return ".".join(parts) + ".", float(ends)
