"""Certificate by which workers recognise this daemon. It is made once, and tokens hold its hash."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ...storage.atomic_files import write_atomically

_FILE: Final = "worker.pem"
_LIFETIME: Final = timedelta(days=365 * 100)
"""A token is revoked by name, so the certificate need not expire."""


def worker_context(directory: Path) -> tuple[ssl.SSLContext, bytes]:
    """Return the TLS context of the listener, and the SHA-256 of its certificate.

    Args:
        directory: holds key and certificate. They are made if they are missing.

    Raises:
        OSError, ssl.SSLError: they cannot be used.
        StorageFailed: they cannot be written.
    """
    path = directory / _FILE
    if not path.exists():
        write_atomically(path, _new_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    pem = path.read_text()
    certificate = pem[pem.index("-----BEGIN CERTIFICATE") :]
    return context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()


def _new_pem() -> bytes:
    from cryptography import x509  # takes memory, and is needed once in the life of a home
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fastn-p2p worker listener")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
