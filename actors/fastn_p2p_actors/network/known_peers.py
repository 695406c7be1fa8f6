"""Known peers: identities that the owner of this daemon deals with, as opposed to strangers.

Anyone can make any number of identities, so the cost of strangers is limited. A limit must never reject or forget a
known peer: one in the address book, on the access list of a binding, or one that an identity of this daemon has called
or waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

_MAX_CALLED: Final = 16_384
"""Number of called peers that are remembered. The one that was called longest ago is forgotten first."""
_MAX_NAMED: Final = 65_536
"""Number of peers on access lists, present and earlier ones, that are remembered."""


class KnownPeers:
    """Set of the keys of known peers, since the process started.

    Args:
        in_address_book: returns whether the address book has the identity.
        on_new: called with each key that was neither called nor on an access list before.
    """

    def __init__(self, in_address_book: Callable[[bytes], bool], on_new: Callable[[bytes], None]) -> None:
        self._in_address_book = in_address_book
        self._on_new = on_new
        self._called: dict[bytes, None] = {}
        self._named: dict[bytes, None] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._called or key in self._named or self._in_address_book(key)

    def add_called(self, key: bytes) -> None:
        """Add a peer that an identity of this daemon calls or waits for."""
        self._add(self._called, key, _MAX_CALLED)

    def add_named(self, keys: Iterable[bytes]) -> None:
        """Add the identities of an access list."""
        for key in keys:
            self._add(self._named, key, _MAX_NAMED)

    def _add(self, part: dict[bytes, None], key: bytes, limit: int) -> None:
        if part.pop(key, key) is not None:
            self._on_new(key)
        part[key] = None
        if len(part) > limit:
            del part[next(iter(part))]
