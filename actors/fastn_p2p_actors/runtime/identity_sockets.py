"""Connections that the supervisor makes for the processes of identities.

The supervisor connects from an address in the abstract namespace of Unix sockets that names the identity. The kernel
says that it was the supervisor, so the receiver believes the name.
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Final

_PREFIX: Final = b"\0fastn-p2p/identity/"
_RANDOM: Final = 8
"""Bytes that make an address unique."""


def connect_as(identity: str, path: Path) -> socket.socket:
    """Return a non-blocking socket that is connected to ``path`` in the name of an identity; in none if it is empty.

    Raises:
        OSError: the connection failed. ``BlockingIOError``: the queue there is full.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if identity:
            made.bind(_PREFIX + identity.encode() + b"/" + secrets.token_hex(_RANDOM).encode())
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


def identity_label(address: object) -> str:
    """Return the name of the identity in an address; empty if there is none."""
    if not isinstance(address, bytes) or not address.startswith(_PREFIX):
        return ""
    return address.removeprefix(_PREFIX).rpartition(b"/")[0].decode(errors="replace")
