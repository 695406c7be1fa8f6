"""Files in the age format, as a program of others opens them: pyrage, bindings to an implementation in Rust."""

from __future__ import annotations

import pyrage  # type: ignore[import-untyped]

from fastn_p2p_actors.vault.passphrase import Secret
from tests.support.locked_vaults import delivered


def decrypt(data: bytes, passphrase: str) -> bytes:
    """Return the content of a file."""
    content: bytes = pyrage.passphrase.decrypt(data, passphrase)  # pyright: ignore[reportAttributeAccessIssue]
    return content


def secret_of(passphrase: bytes) -> Secret:
    """Return the passphrase as the vault holds it."""
    secret = Secret()
    with delivered(passphrase + b"\n") as descriptor:
        secret.read(descriptor)
    return secret
