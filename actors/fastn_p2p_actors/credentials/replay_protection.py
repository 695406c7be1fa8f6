"""Replay protection: epochs and sequences seen of each identity, so that older keys and records are recognised.

An identity is either known (address book, access lists, peers that were called) or a stranger. A stranger can make up
any number of identities. So strangers have a limited part of each table, and their oldest entries are removed first.
Entries of known peers are kept. The owner of a table says which identities are known, and saves their entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

from fastn_p2p_client.errors import BadMessage, EpochRetired, RecordReplayed
from fastn_p2p_client.keys import PublicKey

from .envelope import CLOCK_SKEW

BOOK_ENTRIES: Final = 16_384
"""Strangers in a table, beside those that are connected; the same number of peers that were known once."""
MAX_LINEAGES: Final = 8
"""Lineages of one identity, as many as a record may list. An identity with more loses its own oldest."""
_SCANNED: Final = 64
"""Entries that are examined for removal at a time. The rest waits for the next time, so that no step takes long."""

V = TypeVar("V")
KeyPredicate: TypeAlias = Callable[[bytes], bool]
"""Predicate of an identity's key."""


def _no_identity(_: bytes) -> bool:
    return False


class _PeerMemory(Generic[V]):
    """Value of each identity. Values of known peers are kept, those of strangers are limited."""

    def __init__(self, limit: int, is_known: KeyPredicate, is_present: KeyPredicate) -> None:
        self._limit = limit
        self._is_known = is_known
        self._is_present = is_present
        self.kept: dict[bytes, V] = {}
        self.strangers: dict[bytes, V] = {}

    def __len__(self) -> int:
        return len(self.kept) + len(self.strangers)

    def get(self, key: bytes) -> V | None:
        value = self.kept.get(key)
        return self.strangers.get(key) if value is None else value

    def put(self, key: bytes, value: V) -> bool:
        """Record a value. Return whether it is kept."""
        kept = key in self.kept or self._is_known(key)
        self.strangers.pop(key, None)
        part = self.kept if kept else self.strangers
        part.pop(key, None)
        part[key] = value
        self._trim(part, self._is_known if kept else self._is_present)
        return kept

    def keep(self, key: bytes) -> V | None:
        """Keep the value of an identity from now on. Return it if the identity was a stranger so far."""
        value = self.strangers.pop(key, None)
        if value is not None:
            self.kept[key] = value
        return value

    def _trim(self, part: dict[bytes, V], is_needed: KeyPredicate) -> None:
        """Remove the oldest values that are not needed. A needed one moves to the end."""
        for _ in range(_SCANNED):
            if len(part) <= self._limit:
                return
            oldest = next(iter(part))
            value = part.pop(oldest)
            if is_needed(oldest):
                part[oldest] = value


Lineages: TypeAlias = tuple[tuple[bytes, int], ...]
"""Lineages with their highest epochs; the lineage whose epoch rose last comes last."""


class EpochTracker:
    """Highest epoch seen of each (identity, lineage).

    A lineage is one daemon's succession of transport keys. A new key of one daemon retires that daemon's older keys. It
    does not affect other daemons that serve the same identity.

    Args:
        limit: identities of strangers, beside those that are present.
        is_known: return whether the identity's entries are kept.
        is_present: return whether the identity has a connection at the moment. Such a stranger is removed last.
        on_kept: called for each epoch that is kept: identity, lineage, epoch.
        on_retired: called the same way for a stranger whose earlier transport key was retired.
        check_revoked: called with each identity that is observed. Raises IdentityRevoked for a revoked one, of which
            no delegation is valid any more.

    Attributes:
        changes: number of epochs recorded so far.
    """

    def __init__(
        self,
        limit: int = BOOK_ENTRIES,
        *,
        is_known: KeyPredicate = _no_identity,
        is_present: KeyPredicate = _no_identity,
        on_kept: Callable[[bytes, bytes, int], None] | None = None,
        on_retired: Callable[[bytes, bytes, int], None] | None = None,
        check_revoked: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.changes = 0
        self._check_revoked = check_revoked
        self._on_retired = on_retired or (lambda _identity, _lineage, _epoch: None)
        self._memory: _PeerMemory[Lineages] = _PeerMemory(limit, is_known, is_present)
        self._on_kept = on_kept or (lambda _identity, _lineage, _epoch: None)

    def __len__(self) -> int:
        return len(self._memory)

    def observe(self, identity: PublicKey, lineage: bytes, epoch: int) -> None:
        """Record an epoch that was proven to be genuine.

        Raises:
            EpochRetired: a higher epoch is known.
            IdentityRevoked: the identity was revoked.
        """
        key = bytes(identity)
        self._check_revoked(key)
        lineages = self._memory.get(key) or ()
        newest = next((known for name, known in lineages if name == lineage), -1)
        if epoch < newest:
            raise EpochRetired(identity=identity.id52, epoch=epoch, newest=newest)
        if epoch > newest and not self._note(key, lineage, epoch) and newest >= 0:
            self._on_retired(key, lineage, epoch)

    def is_retired(self, identity: bytes, lineage: bytes, epoch: int) -> bool:
        """Return whether a higher epoch of this lineage has been seen."""
        return any(name == lineage and epoch < newest for name, newest in self._memory.get(identity) or ())

    def keep(self, identity: bytes) -> None:
        """Keep the identity's epochs from now on: it has become known."""
        for lineage, epoch in self._memory.keep(identity) or ():
            self._on_kept(identity, lineage, epoch)

    def keeps(self, identity: bytes) -> bool:
        """Return whether the identity is known, or was known when it was last seen, perhaps before a restart."""
        return identity in self._memory.kept

    def restore(self, identity: bytes, lineage: bytes, epoch: int, *, kept: bool = True) -> None:
        """Load a saved epoch. A lower epoch than the present one has no effect."""
        memory = self._memory.kept if kept else self._memory.strangers
        others = [each for each in memory.get(identity, ()) if each[0] != lineage or each[1] > epoch]
        if all(name != lineage for name, _ in others):
            memory[identity] = (*others, (lineage, epoch))[-MAX_LINEAGES:]

    def to_dict(self) -> dict[str, int]:
        """Return epochs by ``"<identity>/<lineage>"`` in hexadecimal, strangers first, each part oldest first."""
        return _epochs_as_text(self._memory.strangers) | _epochs_as_text(self._memory.kept)

    def parts(self) -> tuple[Callable[[], dict[str, int]], Callable[[], dict[str, int]]]:
        """Return functions for the kept epochs and for those of strangers, both as of now.

        They return them in the form of ``to_dict``, take a while, and may be called in a thread.
        """
        kept, strangers = dict(self._memory.kept), dict(self._memory.strangers)
        return (lambda: _epochs_as_text(kept)), (lambda: _epochs_as_text(strangers))

    @classmethod
    def from_dict(cls, saved: Mapping[str, int], limit: int = BOOK_ENTRIES) -> EpochTracker:
        """Create a tracker from the result of ``to_dict``.

        Raises:
            BadMessage: it is damaged.
        """
        tracker = cls(limit)
        tracker.restore_dict(saved)
        return tracker

    def restore_dict(self, saved: Mapping[str, int], *, kept: bool = True) -> None:
        """Load a result of ``to_dict``.

        Raises:
            BadMessage: it is damaged.
        """
        for text, epoch in saved.items():
            identity, _, lineage = text.partition("/")
            try:
                self.restore(bytes.fromhex(identity), bytes.fromhex(lineage), int(epoch), kept=kept)
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved epochs") from None

    def _note(self, key: bytes, lineage: bytes, epoch: int) -> bool:
        """Record an epoch. Return whether it is kept."""
        self.changes += 1
        was_kept = key in self._memory.kept
        others = tuple(each for each in self._memory.get(key) or () if each[0] != lineage)
        lineages = (*others, (lineage, epoch))[-MAX_LINEAGES:]
        is_kept = self._memory.put(key, lineages)
        for each in (lineages[-1:] if was_kept else lineages) if is_kept else ():
            self._on_kept(key, *each)
        return is_kept


def _epochs_as_text(part: Mapping[bytes, Lineages]) -> dict[str, int]:
    return {
        f"{identity.hex()}/{lineage.hex()}": epoch for identity, lineages in part.items() for lineage, epoch in lineages
    }


class SequenceTracker:
    """Highest sequence seen of each identity's records, with a digest of that record.

    Args:
        limit: identities that are not known.
        is_known: return whether the identity's entry is kept.
        on_noted: called for each entry: identity, sequence, digest.
    """

    def __init__(
        self,
        limit: int = BOOK_ENTRIES,
        *,
        is_known: KeyPredicate = _no_identity,
        on_noted: Callable[[bytes, int, bytes], None] | None = None,
    ) -> None:
        self._memory: _PeerMemory[tuple[int, bytes]] = _PeerMemory(limit, is_known, _no_identity)
        self._on_noted = on_noted or (lambda _identity, _sequence, _digest: None)

    def __len__(self) -> int:
        return len(self._memory)

    def observe(self, identity: PublicKey, sequence: int, digest: bytes, *, now: float | None = None) -> None:
        """Record a record that was proven to be genuine. The newest one may come any number of times.

        Sequences are milliseconds since 1970. One later than ``now`` was recorded while clocks were ahead. It must not
        keep out records that are made after they were corrected.

        Raises:
            RecordReplayed: a higher sequence is known, or another record with the same one.
        """
        key = bytes(identity)
        newest, known = self._memory.get(key) or (-1, b"")
        if now is not None and is_from_future(newest, now) and not is_from_future(sequence, now):
            self._memory.put(key, (sequence, digest))
            self._on_noted(key, sequence, digest)
            return
        if sequence < newest or (sequence == newest and digest != known):
            raise RecordReplayed(identity=identity.id52, sequence=sequence, newest=newest)
        if sequence > newest:
            self._memory.put(key, (sequence, digest))
            self._on_noted(key, sequence, digest)

    def keep(self, identity: bytes) -> None:
        """Keep the identity's sequence from now on: it has become known."""
        self._memory.keep(identity)

    def restore(self, identity: bytes, sequence: int, digest: bytes) -> None:
        """Load a saved sequence. A lower sequence than the present one has no effect."""
        if sequence > (self._memory.kept.get(identity) or (-1, b""))[0]:
            self._memory.kept[identity] = (sequence, digest)

    def to_dict(self) -> dict[str, list[int | str]]:
        """Return [sequence, digest in hexadecimal] by identity in hexadecimal, oldest first."""
        return _sequences_as_text(self._memory.strangers | self._memory.kept)

    def parts(self) -> Callable[[], dict[str, list[int | str]]]:
        """Return a function for the sequences as of now.

        It returns them in the form of ``to_dict``, and may be called in a thread.
        """
        noted = self._memory.strangers | self._memory.kept
        return lambda: _sequences_as_text(noted)

    @classmethod
    def from_dict(cls, saved: Mapping[str, list[int | str]], limit: int = BOOK_ENTRIES) -> SequenceTracker:
        """Create a tracker from the result of ``to_dict``.

        Raises:
            BadMessage: it is damaged.
        """
        tracker = cls(limit)
        tracker.restore_dict(saved)
        return tracker

    def restore_dict(self, saved: Mapping[str, list[int | str]]) -> None:
        """Load a result of ``to_dict``.

        Raises:
            BadMessage: it is damaged.
        """
        for text, entry in saved.items():
            try:
                sequence, digest = entry
                self.restore(bytes.fromhex(text), int(sequence), bytes.fromhex(str(digest)))
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved sequences") from None


def is_from_future(sequence: int, now: float) -> bool:
    """Return whether a sequence, in milliseconds since 1970, is from a clock that was ahead."""
    return sequence > (now + CLOCK_SKEW) * 1000


def _sequences_as_text(noted: Mapping[bytes, tuple[int, bytes]]) -> dict[str, list[int | str]]:
    return {identity.hex(): [sequence, digest.hex()] for identity, (sequence, digest) in noted.items()}
