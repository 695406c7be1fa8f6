"""Books of epochs and sequences: what has been seen of each identity, so that older keys and records are recognised.

Each identity is either known (the owner's address book, access lists, peers that were called) or a stranger. A stranger
can make up any number of identities, so strangers have a limited part of each book, and their oldest entries go first.
Entries of known peers are kept. The owner of a book says who is known, and saves what it is told of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

from fastn_p2p_client.errors import BadMessage, EpochRetired, RecordReplayed
from fastn_p2p_client.keys import PublicKey

from .envelope import CLOCK_SKEW

__all__ = ["BOOK_ENTRIES", "MAX_LINEAGES", "EpochTracker", "SequenceTracker", "is_from_future"]

BOOK_ENTRIES: Final = 16_384
"""Strangers in a book, beside those that are connected; and peers that were known once."""
MAX_LINEAGES: Final = 8
"""Lineages of one identity, as many as a record may list. An identity that makes up more loses its own oldest."""
_SCANNED: Final = 64
"""Entries that are looked at for one to forget. The rest waits for the next time, so that no step takes long."""

V = TypeVar("V")
Question: TypeAlias = Callable[[bytes], bool]
"""Says something of an identity's key."""


def _nobody(_: bytes) -> bool:
    return False


class _PeerMemory(Generic[V]):
    """One value for each identity. Those of known peers are kept, and those of strangers limited."""

    def __init__(self, limit: int, is_known: Question, is_present: Question) -> None:
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
        """Note a value; return whether it is kept."""
        kept = key in self.kept or self._is_known(key)
        self.strangers.pop(key, None)
        part = self.kept if kept else self.strangers
        part.pop(key, None)
        part[key] = value
        self._trim(part, self._is_known if kept else self._is_present)
        return kept

    def keep(self, key: bytes) -> V | None:
        """Keep from now on what is noted of the identity; return it if it was a stranger's so far."""
        value = self.strangers.pop(key, None)
        if value is not None:
            self.kept[key] = value
        return value

    def _trim(self, part: dict[bytes, V], is_needed: Question) -> None:
        """Forget the oldest of what is not needed. What is needed is looked at again after all others."""
        for _ in range(_SCANNED):
            if len(part) <= self._limit:
                return
            oldest = next(iter(part))
            value = part.pop(oldest)
            if is_needed(oldest):
                part[oldest] = value


Lineages: TypeAlias = tuple[tuple[bytes, int], ...]
"""Lineage and its highest epoch; the one that rose last comes last."""


class EpochTracker:
    """The highest epoch seen of each (identity, lineage).

    A lineage is one daemon's succession of transport keys, so a new key of one daemon retires that daemon's older
    ones and leaves alone the other daemons that serve the same identity.

    Args:
        limit: identities of strangers, beside those that are present.
        is_known: whether the identity's entries are to be kept.
        is_present: whether the identity speaks over a connection at the moment: such a stranger is forgotten last.
        on_kept: told each epoch that is to be kept: identity, lineage, epoch.
        on_retired: told the same of a stranger whose earlier transport key has just been retired.

    Attributes:
        changes: how often an epoch was noted.
    """

    def __init__(
        self,
        limit: int = BOOK_ENTRIES,
        *,
        is_known: Question = _nobody,
        is_present: Question = _nobody,
        on_kept: Callable[[bytes, bytes, int], None] | None = None,
        on_retired: Callable[[bytes, bytes, int], None] | None = None,
    ) -> None:
        self.changes = 0
        self._on_retired = on_retired or (lambda _identity, _lineage, _epoch: None)
        self._memory: _PeerMemory[Lineages] = _PeerMemory(limit, is_known, is_present)
        self._on_kept = on_kept or (lambda _identity, _lineage, _epoch: None)

    def __len__(self) -> int:
        return len(self._memory)

    def observe(self, identity: PublicKey, lineage: bytes, epoch: int) -> None:
        """Note an epoch that is proven to be genuine.

        Raises:
            EpochRetired: a higher one is known.
        """
        key = bytes(identity)
        lineages = self._memory.get(key) or ()
        newest = next((known for name, known in lineages if name == lineage), -1)
        if epoch < newest:
            raise EpochRetired(identity=identity.id52, epoch=epoch, newest=newest)
        if epoch > newest and not self._note(key, lineage, epoch) and newest >= 0:
            self._on_retired(key, lineage, epoch)

    def keep(self, identity: bytes) -> None:
        """Keep from now on what was seen of the identity: it has become known."""
        for lineage, epoch in self._memory.keep(identity) or ():
            self._on_kept(identity, lineage, epoch)

    def keeps(self, identity: bytes) -> bool:
        """Return whether the identity is known, or was when it was last seen, perhaps before a restart."""
        return identity in self._memory.kept

    def restore(self, identity: bytes, lineage: bytes, epoch: int, *, kept: bool = True) -> None:
        """Note what was saved earlier; a lower epoch changes nothing."""
        memory = self._memory.kept if kept else self._memory.strangers
        others = [each for each in memory.get(identity, ()) if each[0] != lineage or each[1] > epoch]
        if all(name != lineage for name, _ in others):
            memory[identity] = (*others, (lineage, epoch))[-MAX_LINEAGES:]

    def to_dict(self) -> dict[str, int]:
        """``"<identity>/<lineage>"`` in hexadecimal → epoch, strangers' first, each oldest first."""
        return _epochs_as_text(self._memory.strangers) | _epochs_as_text(self._memory.kept)

    def parts(self) -> tuple[Callable[[], dict[str, int]], Callable[[], dict[str, int]]]:
        """What is kept and what strangers have, as in ``to_dict``, at this moment. Calling them takes a while, and
        may happen in a thread."""
        kept, strangers = dict(self._memory.kept), dict(self._memory.strangers)
        return (lambda: _epochs_as_text(kept)), (lambda: _epochs_as_text(strangers))

    @classmethod
    def from_dict(cls, saved: Mapping[str, int], limit: int = BOOK_ENTRIES) -> EpochTracker:
        """Return the book that ``to_dict`` described.

        Raises:
            BadMessage: it is damaged.
        """
        book = cls(limit)
        book.restore_dict(saved)
        return book

    def restore_dict(self, saved: Mapping[str, int], *, kept: bool = True) -> None:
        """Note what ``to_dict`` has given. Raises BadMessage."""
        for text, epoch in saved.items():
            identity, _, lineage = text.partition("/")
            try:
                self.restore(bytes.fromhex(identity), bytes.fromhex(lineage), int(epoch), kept=kept)
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved epochs") from None

    def _note(self, key: bytes, lineage: bytes, epoch: int) -> bool:
        """Return whether it is kept."""
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
    """The highest sequence seen of each identity's records, with a digest of that record.

    Args:
        limit: identities that are not known.
        is_known: whether the identity's entry is to be kept.
        on_noted: told each entry: identity, sequence, digest.
    """

    def __init__(
        self,
        limit: int = BOOK_ENTRIES,
        *,
        is_known: Question = _nobody,
        on_noted: Callable[[bytes, int, bytes], None] | None = None,
    ) -> None:
        self._memory: _PeerMemory[tuple[int, bytes]] = _PeerMemory(limit, is_known, _nobody)
        self._on_noted = on_noted or (lambda _identity, _sequence, _digest: None)

    def __len__(self) -> int:
        return len(self._memory)

    def observe(self, identity: PublicKey, sequence: int, digest: bytes, *, now: float | None = None) -> None:
        """Note a record that is proven to be genuine. The newest one may come any number of times.

        Sequences are milliseconds since 1970. One that is later than ``now`` was given by a clock that was ahead, and
        noted by one: it must not keep out those that come after both were put right.

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
        """Keep from now on what was seen of the identity: it has become known."""
        self._memory.keep(identity)

    def restore(self, identity: bytes, sequence: int, digest: bytes) -> None:
        """Note what was saved earlier; a lower sequence changes nothing."""
        if sequence > (self._memory.kept.get(identity) or (-1, b""))[0]:
            self._memory.kept[identity] = (sequence, digest)

    def to_dict(self) -> dict[str, list[int | str]]:
        """Identity in hexadecimal → [sequence, digest in hexadecimal], oldest first."""
        return _sequences_as_text(self._memory.strangers | self._memory.kept)

    def parts(self) -> Callable[[], dict[str, list[int | str]]]:
        """As ``EpochTracker.parts``, of all identities together."""
        noted = self._memory.strangers | self._memory.kept
        return lambda: _sequences_as_text(noted)

    @classmethod
    def from_dict(cls, saved: Mapping[str, list[int | str]], limit: int = BOOK_ENTRIES) -> SequenceTracker:
        """Return the book that ``to_dict`` described.

        Raises:
            BadMessage: it is damaged.
        """
        book = cls(limit)
        book.restore_dict(saved)
        return book

    def restore_dict(self, saved: Mapping[str, list[int | str]]) -> None:
        """Note what ``to_dict`` has given. Raises BadMessage."""
        for text, entry in saved.items():
            try:
                sequence, digest = entry
                self.restore(bytes.fromhex(text), int(sequence), bytes.fromhex(str(digest)))
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved sequences") from None


def is_from_future(sequence: int, now: float) -> bool:
    """Return whether a clock that was ahead has given a record this sequence: they are milliseconds since 1970."""
    return sequence > (now + CLOCK_SKEW) * 1000


def _sequences_as_text(noted: Mapping[bytes, tuple[int, bytes]]) -> dict[str, list[int | str]]:
    return {identity.hex(): [sequence, digest.hex()] for identity, (sequence, digest) in noted.items()}
