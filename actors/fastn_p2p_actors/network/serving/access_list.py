"""Access list of a binding, checked before protocol code gets a byte of a call or a session."""

from __future__ import annotations

from typing import Final, Protocol

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey

from ..address_book import AddressBook

EVERYONE: Final = "everyone"
PEERS: Final = "peers"
_CACHED: Final = 4096
"""Decisions that are kept."""


class LocalIdentities(Protocol):
    """Online identities of this daemon."""

    def by_key(self, key: bytes) -> object | None:
        """Return the online identity with this key; None if there is none."""
        ...


# Every call and every session of a peer asks ``admits``, so the answer has to cost one dictionary lookup.
#
# The decision per key is kept in a cache. It depends on the list, which never changes, and on the address book: a
# petname of the list means the peer that has it at the moment of the call. So the cache belongs to one generation of
# the address book, a number that grows with each change, and a new generation empties it.
#
# Keys come from strangers, so the cache is emptied at ``_CACHED`` entries. A stranger who calls with more keys than
# that only makes decisions cost a set and two dictionary lookups again.
#
# Identities of this daemon go online and offline without a new generation. So the cache does not contain them: they are
# looked up each time, and only for a key that the rest of the list does not admit.


class AccessList:
    """Identities that may use a binding: ``everyone``, ``peers``, ID52s and petnames.

    ``peers`` admits the peers in the address book and the online identities of this daemon, whose owner also owns the
    binding. A petname admits the peer that has it in the address book at the moment of the call.
    """

    __slots__ = ("_book", "_cache", "_everyone", "_generation", "_local", "_names", "_peers", "allow", "keys")

    def __init__(self, allow: tuple[str, ...], book: AddressBook, local: LocalIdentities) -> None:
        self.allow = allow
        self._book = book
        self._local = local
        self._everyone = EVERYONE in allow
        self._peers = PEERS in allow
        self.keys: set[bytes] = set()
        """Keys of the identities that the list names by ID52."""
        self._names: set[str] = set()
        for entry in allow:
            if entry not in (EVERYONE, PEERS):
                try:
                    self.keys.add(bytes(PublicKey(entry)))
                except P2PError:
                    self._names.add(entry)
        self._cache: dict[bytes, bool] = {}
        self._generation = -1

    def admits(self, key: bytes) -> bool:
        """Return whether the identity with this key may use the binding."""
        if self._everyone:
            return True
        if self._generation != self._book.generation or len(self._cache) > _CACHED:
            self._cache.clear()
            self._generation = self._book.generation
        verdict = self._cache.get(key)
        if verdict is None:
            verdict = self._cache[key] = self._decide(key)
        return verdict or (self._peers and self._local.by_key(key) is not None)

    def _decide(self, key: bytes) -> bool:
        peer = self._book.by_key(key)
        return key in self.keys or (peer is not None and (self._peers or peer.name in self._names))
