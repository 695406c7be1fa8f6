"""Access list of a binding, checked before protocol code gets a byte of a call or a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import AccessEntry
from fastn_p2p_client.keys import PublicKey, id52_of

from ..address_book import AddressBook
from ..contacts.invitation_store import PREFIX as INVITATION

EVERYONE: Final = "everyone"
PEERS: Final = "peers"
GROUP: Final = "group:"
"""Prefix of an entry that names a group. No name of a peer has a colon."""
_CACHED: Final = 4096
"""Decisions that are kept."""


class LocalIdentities(Protocol):
    """Online identities of this daemon."""

    def by_key(self, key: bytes) -> object | None:
        """Return the online identity with this key; None if there is none."""
        ...

    def key_of(self, name: str) -> bytes | None:
        """Return the key of the online identity with this name; None if there is none."""
        ...


# Every call and every session of a peer asks ``admits``, so the answer has to cost one dictionary lookup.
#
# The decision per key is kept in a cache. It depends on the list, which never changes, and on the address book with its
# groups: a petname of the list means the peer that has it at the moment of the call. So the cache belongs to one
# generation of the address book, a number that grows with each change, and a new generation empties it.
#
# Keys come from strangers, so the cache is emptied at ``_CACHED`` entries. A stranger who calls with more keys than
# that only makes decisions cost a set and two dictionary lookups again.
#
# Identities of this daemon go online and offline without a new generation. So the cache does not contain them: they are
# looked up each time, and only for a key that the rest of the list does not admit.


class AccessList:
    """Identities that may use a binding: ``everyone``, ``peers``, ``group:NAME``, ID52s and petnames.

    ``peers`` admits the peers in the address book and the online identities of this daemon, whose owner also owns the
    binding. A petname admits the peer that has it in the address book at the moment of the call, and a group admits the
    peers that are in it at that moment.

    Beside the list, an invitation admits its bearers to the bindings that it names. Neither ``peers`` nor a petname
    admits a peer that only an invitation has let in.

    Args:
        binding: names of identity, protocol and instance; None if invitations do not matter.
    """

    __slots__ = (
        "_binding", "_book", "_cache", "_everyone", "_generation", "_groups", "_local", "_names", "_peers", "allow",
        "keys", "on_admitted",
    )  # fmt: skip

    def __init__(
        self,
        allow: tuple[str, ...],
        book: AddressBook,
        local: LocalIdentities,
        binding: tuple[str, str, str] | None = None,
    ) -> None:
        self.allow = allow
        self._binding = binding
        self._book = book
        self._local = local
        self._everyone = EVERYONE in allow
        self._peers = PEERS in allow
        self.keys: set[bytes] = set()
        """Keys of the identities that the list names by ID52."""
        self._names: set[str] = set()
        self._groups = [entry.removeprefix(GROUP) for entry in allow if entry.startswith(GROUP)]
        for entry in allow:
            if entry not in (EVERYONE, PEERS) and not entry.startswith(GROUP):
                try:
                    self.keys.add(bytes(PublicKey(entry)))
                except P2PError:
                    self._names.add(entry)
        self.on_admitted: Callable[[bytes, str], object] = lambda _key, _entry: None
        """Called with an identity and the entry that admits it, when that is decided. ``everyone`` decides nothing."""
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
            entry = self.entry_for(key)
            verdict = self._cache[key] = bool(entry)
            if verdict:
                self.on_admitted(key, entry)
        return verdict or (self._peers and self._local.by_key(key) is not None)

    def entry_for(self, key: bytes) -> str:
        """Return the entry that admits the identity; empty if none does. A new kind of entry belongs here.

        The most specific entry comes first. Online identities of this daemon are left to ``admits``.
        """
        peer = self._book.by_key(key)
        if peer is not None and peer.invited:
            peer = None
        if key in self.keys:
            return id52_of(key)
        if peer is not None and peer.name in self._names:
            return peer.name
        for group in self._groups:
            if key in self._book.groups.members(group):
                return GROUP + group
        if self._binding is not None and key in self._book.invitations:
            identity, protocol, instance = self._binding
            found = self._book.invitations.find_permission(
                key, identity, self._local.key_of(identity), protocol, instance
            )
            if found:
                return INVITATION + found
        if self._peers and peer is not None:
            return PEERS
        return EVERYONE if self._everyone else ""

    def entries(self) -> list[AccessEntry]:
        """Return the identities that the list admits, one by one, except for ``everyone`` and ``peers``."""
        found: dict[str, AccessEntry] = {}
        for entry in self.allow:
            for each in self._entries_of(entry):
                found.setdefault(each.id52 or each.who, each)
        for key, invitation in self._book.invitations.bearers_of(*self._binding) if self._binding else ():
            found.setdefault(id52_of(key), self._entry(key, INVITATION + invitation))
        return list(found.values())

    def _entries_of(self, entry: str) -> list[AccessEntry]:
        if entry == EVERYONE:
            return [AccessEntry(who=EVERYONE, why=EVERYONE, count=0)]
        if entry == PEERS:
            return [AccessEntry(who=PEERS, why=PEERS, count=self._book.trusted())]
        if entry.startswith(GROUP):
            name = entry.removeprefix(GROUP)
            if name not in self._book.groups:
                return [AccessEntry(who=entry, why=entry, count=0, problem="there is no such group")]
            members = self._book.groups.members(name)
            if not members:
                return [AccessEntry(who=entry, why=entry, count=0, problem="the group is empty")]
            return [self._entry(key, entry) for key in members]
        peer = self._book.by_name(entry)
        if peer is not None and peer.invited:
            problem = "an invitation has let it in, not its name"
            return [AccessEntry(who=entry, why=entry, count=0, problem=problem)]
        if peer is not None:
            return [self._entry(bytes(peer.key), entry)]
        if entry in self._names:
            return [AccessEntry(who=entry, why=entry, count=0, problem="no peer has this name")]
        return [self._entry(bytes(PublicKey(entry)), entry)]

    def _entry(self, key: bytes, why: str) -> AccessEntry:
        return AccessEntry(who=self._book.name_of(key) or id52_of(key), why=why, id52=id52_of(key))
