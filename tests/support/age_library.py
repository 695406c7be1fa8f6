"""Files in the age format, as a program of others opens them: pyrage, bindings to an implementation in Rust."""

from __future__ import annotations

import pyrage  # type: ignore[import-untyped]


def decrypt(data: bytes, passphrase: str) -> bytes:
    """Return the content of a file."""
    content: bytes = pyrage.passphrase.decrypt(data, passphrase)  # pyright: ignore[reportAttributeAccessIssue]
    return content
