"""Paths that a peer shares: one call of its FileTransfer. The names are the peer's: they are checked, then quoted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

DEADLINE: Final = 0.08
"""Seconds for the daemon and the peer."""
PAGE: Final = 1000
"""Entries of the directory that are asked for."""


def remote_paths(home: str | None, identity: str | None, peer: str, instance: str, word: str) -> Iterator[str]:
    """Yield the paths of a peer that begin with ``word``; directories with ``/`` at their end.

    Ends the process when the deadline is over: a completion has nothing else to say then.

    Raises:
        P2PError, ApplicationError: the peer was not reached, or refuses.
    """
    import asyncio
    import threading

    from fastn_p2p_client.client import Client

    parent, slash, beginning = word.rpartition("/")
    request = {"type": "list", "path": parent.strip("/"), "after": _just_before(beginning), "limit": PAGE}

    async def page() -> Any:
        async with Client(home, program="fastn-p2p completion") as client:
            return await client.call(identity, peer, "FileTransfer", instance, request)

    # The client has deadlines of its own, but whatever else could wait here, the shell of the user must not.
    limit = threading.Timer(DEADLINE, os._exit, (0,))
    limit.start()
    try:
        listing = asyncio.run(page())
    finally:
        limit.cancel()

    for entry in listing["entries"]:
        name, kind = entry["path"], entry["kind"]
        if _is_offered(name, kind) and not (name.startswith("-") and not parent):
            yield f"{parent}{slash}{name}{'/' if kind == 'directory' else ''}"


def _is_offered(name: object, kind: object) -> bool:
    """Return whether it is the name of one file or directory that can be got."""
    return isinstance(name, str) and "/" not in name and name not in ("", ".", "..") and kind in ("file", "directory")


def _just_before(beginning: str) -> str:
    """Return a name after which the page begins, so that entries with this beginning are in it."""
    if not beginning:
        return ""
    last = ord(beginning[-1]) - 1
    return beginning[:-1] + (chr(last) + "\U0010ffff" if last > 0 and not 0xD800 <= last <= 0xDFFF else "")
