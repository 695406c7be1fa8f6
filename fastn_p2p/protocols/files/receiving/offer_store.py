"""Store of offers: one peer's list of files, how it stands, and what has come of it; outlives every process.

::

    offers/<id>.json     an ``OfferSummary``: from whom, and how it stands
    offers/<id>.entries  the offered entries: msgpack, compressed with zlib when they are many
    offers/<id>.made     directories that were made for it, in msgpack
    offers/<id>.arrived  files that have come, and how to recognise them: JSON, a line for each

The summary is written last and removed first: an offer exists when it is there.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_actors.storage.atomic_files import (
    make_directory,
    write_atomically,
)
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..errors import FileError
from ..messages import Entry, OfferSummary
from .arrivals import Seal

_PARTS: Final = ("json", "entries", "made", "arrived")
_FEW: Final = 4096
"""Bytes of a list that are not worth compressing."""
_UNREADABLE: Final = (OSError, zlib.error, *UNDECODABLE)

as_msgpack: Final = msgspec.msgpack.Encoder().encode
_paths: Final = msgspec.msgpack.Decoder(list[str])
_entries: Final = msgspec.msgpack.Decoder(list[Entry])
_arrived: Final = msgspec.json.Decoder(tuple[str, Seal])

log = logging.getLogger(__name__)


class OfferStore:
    """All of this blocks, and is called by one thread at a time for one offer.

    Args:
        directory: of its own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[OfferSummary]:
        """Return what there is. An offer that is damaged is left out, and the log says so."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                summary = msgspec.json.decode(path.read_bytes(), type=OfferSummary)
            except (OSError, *UNDECODABLE) as error:
                log.error("the offer in %s is not used: %s", path, error)
                continue
            if summary.id == path.stem:
                found.append(summary)
        return found

    def add(self, summary: OfferSummary, packed: bytes) -> None:
        """Raises StorageFailed."""
        make_directory(self._directory)
        write_atomically(self._path(summary.id, "entries"), packed)
        self.update(summary)

    def update(self, summary: OfferSummary) -> None:
        """Raises StorageFailed."""
        text = msgspec.json.format(msgspec.json.encode(summary)) + b"\n"
        write_atomically(self._path(summary.id, "json"), text)

    def remove(self, offer: str) -> None:
        """Raises OSError."""
        for part in _PARTS:
            self._path(offer, part).unlink(missing_ok=True)

    def entries(self, offer: str) -> list[Entry]:
        """Return what was offered.

        Raises:
            FileError: ``OfferUnknown``: it cannot be read any more.
        """
        try:
            body = self._path(offer, "entries").read_bytes()
            return _entries.decode(zlib.decompress(body) if body.startswith(b"\x78") else body)
        except _UNREADABLE as error:
            raise FileError("OfferUnknown", f"offer {offer} cannot be read any more") from error

    def made(self, offer: str) -> frozenset[str]:
        """Return the directories that were made for an offer, by this process or an earlier one."""
        try:
            return frozenset(_paths.decode(self._path(offer, "made").read_bytes()))
        except _UNREADABLE:
            return frozenset()

    def set_made(self, offer: str, made: Iterable[str]) -> None:
        """Raises StorageFailed."""
        write_atomically(self._path(offer, "made"), as_msgpack(list(made)))

    def arrived(self, offer: str) -> dict[str, Seal]:
        """Return the files of an offer that have come, as far as that was written down."""
        found: dict[str, Seal] = {}
        with contextlib.suppress(OSError):
            for line in self._path(offer, "arrived").read_bytes().splitlines():
                with contextlib.suppress(*UNDECODABLE):  # cut short by a crash
                    path, seal = _arrived.decode(line)
                    found[path] = seal
        return found

    def add_arrived(self, offer: str, path: str, seal: Seal) -> None:
        """Note that a file has come. It outlives the process; where a power cut loses it, the file is compared."""
        with contextlib.suppress(OSError), self._path(offer, "arrived").open("ab") as file:
            file.write(msgspec.json.encode((path, seal)) + b"\n")

    def _path(self, offer: str, part: str) -> Path:
        return self._directory / f"{offer}.{part}"


def pack(entries: Sequence[Entry]) -> bytes:
    """Return the entries as they are kept: compressed unless they are few."""
    plain = as_msgpack(entries)
    return plain if len(plain) <= _FEW else zlib.compress(plain)
