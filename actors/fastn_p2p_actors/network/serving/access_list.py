"""Who may use a binding: checked before protocol code sees a byte."""

from __future__ import annotations

from typing import Final, Protocol

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey

from ..address_book import AddressBook

__all__ = ["EVERYONE", "PEERS", "AccessList"]

EVERYONE: Final = "everyone"
PEERS: Final = "peers"
_CACHED: Final = 4096


class LocalIdentities(Protocol):
    """The identities of this daemon, whose owner also owns the binding."""

    def by_key(self, key: bytes) -> object | None: ...


class AccessList:
    """``everyone``, ``peers`` (whoever is in the address book, and this daemon's own identities), ID52s and petnames.

    A petname means whoever has it in the address book at the moment of the call.
    """

    __slots__ = ("_book", "_cache", "_everyone", "_generation", "_local", "_names", "_peers", "allow", "keys")

    def __init__(self, allow: tuple[str, ...], book: AddressBook, local: LocalIdentities) -> None:
        self.allow = allow
        self._book = book
        self._local = local
        self._everyone = EVERYONE in allow
        self._peers = PEERS in allow
        self.keys: set[bytes] = set()
        """Keys of the identities that it names by ID52."""
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
