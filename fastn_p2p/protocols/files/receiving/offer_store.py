"""Offers on disk: the list of files, its state, and the files that have arrived.

::

    offers/<id>.json     an ``OfferSummary``: sender and state
    offers/<id>.entries  the offered entries: msgpack, compressed with zlib if they are many
    offers/<id>.made     directories that were made for the offer, in msgpack
    offers/<id>.arrived  files that have arrived, with their seals: one line of JSON each

The summary is written last and removed first, so an offer exists if its summary does.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_actors.storage.atomic_files import make_directory, write_atomically
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..errors import FileError
from ..messages import Entry, OfferSummary
from .arrivals import Seal

_PARTS: Final = ("json", "entries", "made", "arrived")
_FEW: Final = 4096
"""Bytes of a list that is not compressed."""
_UNREADABLE: Final = (OSError, zlib.error, *UNDECODABLE)

as_msgpack: Final = msgspec.msgpack.Encoder().encode
_paths: Final = msgspec.msgpack.Decoder(list[str])
_entries: Final = msgspec.msgpack.Decoder(list[Entry])
_arrived: Final = msgspec.json.Decoder(tuple[str, Seal])

log = logging.getLogger(__name__)


class OfferStore:
    """Directory of offers. All methods block; at most one thread at a time uses one offer.

    Args:
        directory: used by this store only.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[OfferSummary]:
        """Return all offers. A damaged one is left out and logged."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                summary = msgspec.json.decode(path.read_bytes(), type=OfferSummary)
            except (OSError, *UNDECODABLE) as error:
                log.error("the offer in %s cannot be read and is ignored; remove the file: %s", path, error)
                continue
            if summary.id == path.stem:
                found.append(summary)
        return found

    def add(self, summary: OfferSummary, packed: bytes) -> None:
        """Store a new offer. Raises StorageFailed."""
        make_directory(self._directory)
        write_atomically(self._path(summary.id, "entries"), packed)
        self.update(summary)

    def update(self, summary: OfferSummary) -> None:
        """Store the state of an offer. Raises StorageFailed."""
        text = msgspec.json.format(msgspec.json.encode(summary)) + b"\n"
        write_atomically(self._path(summary.id, "json"), text)

    def remove(self, offer: str) -> None:
        """Delete an offer. Raises OSError."""
        for part in _PARTS:
            self._path(offer, part).unlink(missing_ok=True)

    def entries(self, offer: str) -> list[Entry]:
        """Return the entries of an offer.

        Raises:
            FileError: ``OfferUnknown``: they cannot be read.
        """
        try:
            body = self._path(offer, "entries").read_bytes()
            return _entries.decode(zlib.decompress(body) if body.startswith(b"\x78") else body)
        except _UNREADABLE as error:
            raise FileError(
                "OfferUnknown", f"the list of offer {offer} cannot be read; offer the files again"
            ) from error

    def created_directories(self, offer: str) -> frozenset[str]:
        """Return the directories that were made for an offer, by this process or an earlier one."""
        try:
            return frozenset(_paths.decode(self._path(offer, "made").read_bytes()))
        except _UNREADABLE:
            return frozenset()

    def save_created_directories(self, offer: str, created: Iterable[str]) -> None:
        """Store the directories that were made for an offer. Raises StorageFailed."""
        write_atomically(self._path(offer, "made"), as_msgpack(list(created)))

    def arrived(self, offer: str) -> dict[str, Seal]:
        """Return the files of an offer that have arrived, with their seals."""
        found: dict[str, Seal] = {}
        with contextlib.suppress(OSError):
            for line in self._path(offer, "arrived").read_bytes().splitlines():
                with contextlib.suppress(*UNDECODABLE):  # a crash has truncated the line
                    path, seal = _arrived.decode(line)
                    found[path] = seal
        return found

    def add_arrived(self, offer: str, path: str, seal: Seal) -> None:
        """Store that a file has arrived. Not synced: if a power cut loses the line, the file is compared again."""
        with contextlib.suppress(OSError), self._path(offer, "arrived").open("ab") as file:
            file.write(msgspec.json.encode((path, seal)) + b"\n")

    def _path(self, offer: str, part: str) -> Path:
        return self._directory / f"{offer}.{part}"


def pack(entries: Sequence[Entry]) -> bytes:
    """Return the entries as they are stored: compressed unless they are few."""
    plain = as_msgpack(entries)
    return plain if len(plain) <= _FEW else zlib.compress(plain)
