"""What has been seen before, of bounded size. Whoever owns a book saves it: ``to_dict`` gives plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastn_p2p_client.errors import BadMessage, EpochRetired, RecordReplayed
from fastn_p2p_client.keys import PublicKey

__all__ = ["BOOK_ENTRIES", "EpochBook", "SequenceBook"]

BOOK_ENTRIES: Final = 16_384
"""Entries in a book; one more pushes the oldest out."""


class EpochBook:
    """The highest epoch seen of each (identity, lineage).

    A lineage is one daemon's succession of transport keys, so a new key of one daemon retires that daemon's older
    ones and leaves alone the other daemons that serve the same identity.
    """

    def __init__(self, limit: int = BOOK_ENTRIES) -> None:
        self._limit = limit
        self._highest: dict[tuple[bytes, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._highest)

    def observe(self, identity: PublicKey, lineage: bytes, epoch: int) -> None:
        """Notes an epoch that is proven to be genuine.

        Raises:
            EpochRetired: a higher one is known.
        """
        key = (bytes(identity), lineage)
        newest = self._highest.get(key, -1)
        if epoch < newest:
            raise EpochRetired(identity=identity.id52, epoch=epoch, newest=newest)
        if epoch > newest:
            self._highest.pop(key, None)
            self._highest[key] = epoch
            while len(self._highest) > self._limit:
                del self._highest[next(iter(self._highest))]

    def to_dict(self) -> dict[str, int]:
        """``"<identity>/<lineage>"`` in hexadecimal → epoch, oldest first."""
        return {f"{identity.hex()}/{lineage.hex()}": epoch for (identity, lineage), epoch in self._highest.items()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, int], limit: int = BOOK_ENTRIES) -> EpochBook:
        """The book that ``to_dict`` described.

        Raises:
            BadMessage: it is damaged.
        """
        book = cls(limit)
        for text, epoch in saved.items():
            identity, _, lineage = text.partition("/")
            try:
                book._highest[bytes.fromhex(identity), bytes.fromhex(lineage)] = int(epoch)
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved epochs") from None
        return book


class SequenceBook:
    """The highest sequence seen of each identity's records, with a digest of that record."""

    def __init__(self, limit: int = BOOK_ENTRIES) -> None:
        self._limit = limit
        self._highest: dict[bytes, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._highest)

    def observe(self, identity: PublicKey, sequence: int, digest: bytes) -> None:
        """Notes a record that is proven to be genuine. The newest one may come any number of times.

        Raises:
            RecordReplayed: a higher sequence is known, or another record with the same one.
        """
        key = bytes(identity)
        newest, known = self._highest.get(key, (-1, b""))
        if sequence < newest or (sequence == newest and digest != known):
            raise RecordReplayed(identity=identity.id52, sequence=sequence, newest=newest)
        if sequence > newest:
            self._highest.pop(key, None)
            self._highest[key] = (sequence, digest)
            while len(self._highest) > self._limit:
                del self._highest[next(iter(self._highest))]

    def to_dict(self) -> dict[str, list[int | str]]:
        """Identity in hexadecimal → [sequence, digest in hexadecimal], oldest first."""
        return {identity.hex(): [sequence, digest.hex()] for identity, (sequence, digest) in self._highest.items()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, list[int | str]], limit: int = BOOK_ENTRIES) -> SequenceBook:
        """The book that ``to_dict`` described.

        Raises:
            BadMessage: it is damaged.
        """
        book = cls(limit)
        for text, entry in saved.items():
            try:
                sequence, digest = entry
                book._highest[bytes.fromhex(text)] = (int(sequence), bytes.fromhex(str(digest)))
            except (ValueError, TypeError):
                raise BadMessage(reason=f"{text[:80]!r} in the saved sequences") from None
        return book
