"""Block list: identities that the owner has blocked, and the endpoints through which only they speak.

A blocked identity is refused as early as it can be recognised. Its delegation is not accepted, so no request of it is
looked at. An endpoint that has proved a blocked identity, and no other one, is listed with it: its further connections
are closed at the handshake, before a hello, and without a line in the log. The endpoint is released as soon as another
identity speaks through it or is known to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import Overloaded, P2PError
from fastn_p2p_client.ipc.messages import BlockedInfo
from fastn_p2p_client.keys import PublicKey, id52_of

from .lazy_file import LazyFile, load_file

log = logging.getLogger(__name__)

MAX_BLOCKED: Final = 10_000
"""Identities that the owner can block."""
MAX_ENDPOINTS: Final = 16
"""Endpoints that are listed with one identity. A further one replaces the first."""
SAVE_SECONDS: Final = 30.0
"""Seconds between a new endpoint and the write that contains it. Identities are written at once."""


class _Blocked(msgspec.Struct):
    id52: str
    name: str
    """Petname when it was blocked; empty if it had none."""
    since_ms: int
    endpoints: list[str] = []


class _File(msgspec.Struct):
    blocked: list[_Blocked] = []


class BlockList:
    """Blocked identities by key, kept in one file.

    Args:
        path: the file.
        now: returns Unix time.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._by_key: dict[bytes, _Blocked] = {}
        self._endpoints: dict[bytes, bytes] = {}
        """Endpoint to the blocked identity with which it is listed."""
        self._file = LazyFile(path, self._encode, SAVE_SECONDS)

    def load(self) -> str:
        """Read the file. Return the reason why it cannot be used; empty if it can, or if there is none."""
        consequence = ": peers that were blocked are not blocked now. Block them again"
        return load_file(self._path, _File, self._restore, consequence)

    def _restore(self, saved: _File) -> None:
        by_key = {bytes(PublicKey(each.id52)): each for each in saved.blocked}
        endpoints = {bytes.fromhex(end): key for key, each in by_key.items() for end in each.endpoints}
        self._by_key, self._endpoints = by_key, endpoints

    def close(self) -> None:
        """Write what has changed."""
        self._file.save()

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._by_key

    def has_endpoint(self, endpoint: bytes) -> bool:
        """Return whether only blocked identities are known to speak through the endpoint."""
        return endpoint in self._endpoints

    def add(self, key: bytes, name: str) -> None:
        """Block an identity; ``name`` is its petname. Raises Overloaded or StorageFailed."""
        if key in self._by_key:
            return
        if len(self._by_key) >= MAX_BLOCKED:
            raise Overloaded(what="blocked peers", limit=MAX_BLOCKED)
        self._by_key[key] = _Blocked(id52_of(key), name, int(self._now() * 1000))
        try:
            self._file.save_or_raise()
        except P2PError:
            del self._by_key[key]
            raise

    def remove(self, key: bytes) -> bool:
        """Unblock an identity, and release its endpoints. Return whether it was blocked. Raises StorageFailed."""
        removed = self._by_key.pop(key, None)
        if removed is None:
            return False
        try:
            self._file.save_or_raise()
        except P2PError:
            self._by_key[key] = removed
            raise
        self._endpoints = {endpoint: owner for endpoint, owner in self._endpoints.items() if owner != key}
        return True

    def add_endpoint(self, key: bytes, endpoint: bytes) -> None:
        """List an endpoint that has proved a blocked identity, and no other one."""
        blocked = self._by_key.get(key)
        if blocked is None or endpoint in self._endpoints:
            return
        if len(blocked.endpoints) >= MAX_ENDPOINTS:
            self._endpoints.pop(bytes.fromhex(blocked.endpoints.pop(0)), None)
        blocked.endpoints.append(endpoint.hex())
        self._endpoints[endpoint] = key
        self._file.changed()

    def release_endpoint(self, endpoint: bytes) -> None:
        """Accept connections of an endpoint again, because an identity that is not blocked speaks through it."""
        owner = self._endpoints.pop(endpoint, None)
        if owner is not None:
            self._by_key[owner].endpoints.remove(endpoint.hex())
            self._file.changed()

    def find_by_name(self, name: str) -> bytes | None:
        """Return the identity that had this petname when it was blocked; None if there is none."""
        return next((key for key, each in self._by_key.items() if name and each.name == name), None)

    def infos(self, name_of: Callable[[bytes], str]) -> list[BlockedInfo]:
        """Return the list, in the order in which it was made. ``name_of`` returns a petname, or an empty string."""
        return [
            BlockedInfo(id52=each.id52, name=name_of(key) or each.name, since_ms=each.since_ms)
            for key, each in self._by_key.items()
        ]

    def _encode(self) -> bytes:
        return msgspec.json.encode(_File(list(self._by_key.values())))
