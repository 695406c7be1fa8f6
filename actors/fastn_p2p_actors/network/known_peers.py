"""Known peers: identities that the owner of this daemon deals with, told apart from strangers.

Anybody can make up identities, any number of them, so what a stranger's identity costs is limited. A limit must never
shut out, or make forgotten, a peer that somebody here knows: who is in the address book, on the access list of a
binding, or was called or waited for by one of our own identities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["KnownPeers"]

_MAX_CALLED: Final = 16_384
"""Peers that were called since the process started; the one that was called longest ago goes first."""
_MAX_NAMED: Final = 65_536
"""Peers that are, or were since the process started, on an access list."""


class KnownPeers:
    """The set of their keys: ``key in known_peers``.

    Args:
        in_address_book: whether the address book has the identity.
        on_new: told each key that was not called or on an access list before.
    """

    def __init__(self, in_address_book: Callable[[bytes], bool], on_new: Callable[[bytes], None]) -> None:
        self._in_address_book = in_address_book
        self._on_new = on_new
        self._called: dict[bytes, None] = {}
        self._named: dict[bytes, None] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._called or key in self._named or self._in_address_book(key)

    def add_called(self, key: bytes) -> None:
        """Note that one of our identities calls the peer, or waits for it."""
        self._add(self._called, key, _MAX_CALLED)

    def add_named(self, keys: Iterable[bytes]) -> None:
        """An access list has these identities."""
        for key in keys:
            self._add(self._named, key, _MAX_NAMED)

    def _add(self, part: dict[bytes, None], key: bytes, limit: int) -> None:
        if part.pop(key, key) is not None:
            self._on_new(key)
        part[key] = None
        if len(part) > limit:
            del part[next(iter(part))]
