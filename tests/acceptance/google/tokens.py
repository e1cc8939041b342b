"""OIDC tokens as Google signs them for a service account, with a key of our own, and the address of its certificate."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from tests.loopback import Loopback, Reply, Request, reply

AUDIENCE = "https://sink.example.run.app"
CALLER = "invoker-push@waybill.iam.gserviceaccount.com"


class Signer:
    """A key with its certificate."""

    def __init__(self, key_id: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon.system.gserviceaccount.com")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.key_id = key_id
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self._signer = crypt.RSASigner.from_string(private.decode(), key_id)

    def token(self, **claims: Any) -> str:
        """A good token, but for these claims; None leaves a claim out."""
        now = int(time.time())
        usual = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": CALLER,
            "email_verified": True,
            "sub": "1234567890",
            "iat": now - 60,
            "exp": now + 3600,
        }
        whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        made: bytes = jwt.encode(self._signer, whole)
        return made.decode()


def certificates(*signers: Signer) -> Loopback:
    """A server that says whose signatures count."""
    body = json.dumps({signer.key_id: signer.certificate for signer in signers}).encode()

    def answer(request: Request) -> Reply:
        headers = {"Content-Type": "application/json", "Cache-Control": "public, max-age=21600, must-revalidate"}
        return reply(200, body, {**headers, "Date": format_datetime(datetime.now(UTC), usegmt=True)})

    return Loopback(answer)
