"""What peers have offered: kept in the binding's workspace, so that it outlives every process.

::

    offers/<id>.json     an ``OfferSummary``: from whom, and how it stands
    offers/<id>.entries  the offered entries, in msgpack
    offers/<id>.made     directories that were made for it, in msgpack

The summary is written last and removed first: an offer exists when it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_actors.files import make_directory, write_atomically
from fastn_p2p_client.messages import UNDECODABLE
from fastn_p2p_client.protocol import Peer

from .failures import FileError
from .hashing import short_digest
from .messages import Entry, OfferState, OfferSummary
from .names import parts_of
from .settings import Settings
from .sightings import Sightings

__all__ = ["MAX_OFFERS", "MAX_WAITING", "Inbox"]

MAX_WAITING: Final = 16
"""Offers of one peer that wait or are accepted; one more is refused."""
MAX_OFFERS: Final = 256
"""Offers that are kept; the oldest that are finished or rejected go first."""
_EXAMPLES: Final = 3

_encode: Final = msgspec.msgpack.Encoder().encode
_paths: Final = msgspec.msgpack.Decoder(list[str])
_entries: Final = msgspec.msgpack.Decoder(list[Entry])

log = logging.getLogger(__name__)


class Inbox:
    """Used inside one event loop.

    Args:
        directory: of its own.

    Attributes:
        settings: what is taken, and from whom; may change.
    """

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self.settings = settings
        self._offers: dict[str, OfferSummary] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._changing = asyncio.Lock()

    def open(self) -> None:
        """Reads what there is. What is damaged is left out, and the log says so. Blocks."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                summary = msgspec.json.decode(path.read_bytes(), type=OfferSummary)
            except (OSError, *UNDECODABLE) as error:
                log.error("the offer in %s is not used: %s", path, error)
                continue
            if summary.id == path.stem:
                self._offers[summary.id] = summary

    def all(self) -> list[OfferSummary]:
        """The newest last."""
        return sorted(self._offers.values(), key=lambda offer: offer.created)

    def of(self, offer: str, peer: Peer) -> OfferSummary:
        """An offer that the peer itself has made.

        Raises:
            FileError: ``OfferUnknown``.
        """
        summary = self._offers.get(offer)
        if summary is None or summary.peer != peer.key.id52:
            raise FileError("OfferUnknown", f"there is no offer {offer[:64]} of yours here")
        return summary

    async def add(self, entries: Sequence[Entry], peer: Peer) -> OfferSummary:
        """Takes an offer, or recognises one: the same files from the same peer. Somebody trusted is accepted at once.

        Raises:
            FileError: ``NotShared``, ``UnsafeName``, ``Collision``, ``NotAFile``, ``TooLarge``, ``TooMany``.
            StorageFailed: it cannot be kept.
        """
        if self.settings.inbox is None:
            raise FileError("NotShared", "no files are taken here")
        body = await asyncio.to_thread(self._checked, entries)
        name = short_digest(bytes(peer.key), body)
        async with self._changing:
            return await self._admit(name, entries, body, peer)

    async def entries(self, offer: OfferSummary) -> list[Entry]:
        """What was offered.

        Raises:
            FileError: ``OfferUnknown``: it cannot be read any more.
        """
        try:
            body = await asyncio.to_thread(self._path(offer.id, "entries").read_bytes)
            return _entries.decode(body)
        except (OSError, *UNDECODABLE) as error:
            raise FileError("OfferUnknown", f"offer {offer.id} cannot be read any more") from error

    async def made(self, offer: OfferSummary) -> frozenset[str]:
        """Directories that were made for an offer, by this process or an earlier one."""
        try:
            return frozenset(_paths.decode(await asyncio.to_thread(self._path(offer.id, "made").read_bytes)))
        except (OSError, *UNDECODABLE):
            return frozenset()

    async def remember(self, offer: OfferSummary, made: Sequence[str]) -> None:
        """Raises StorageFailed."""
        await asyncio.to_thread(write_atomically, self._path(offer.id, "made"), _encode(made))

    async def decide(self, offer: str, *, accept: bool, force: bool) -> OfferSummary:
        """Accepts or rejects an offer, also one about which something else was decided before.

        Raises:
            FileError: ``OfferUnknown``.
            StorageFailed: it stands as before.
        """
        async with self._changing:
            summary = self._offers.get(offer)
            if summary is None:
                raise FileError("OfferUnknown", f"there is no offer {offer[:64]} here")
            if summary.state == "finished":
                return summary
            return await self._set(summary, "accepted" if accept else "rejected", force=force)

    async def finish(self, offer: str) -> None:
        """All of its files are there."""
        async with self._changing:
            summary = self._offers.get(offer)
            if summary is not None and summary.state == "accepted":
                await self._set(summary, "finished", force=summary.force)

    async def decided(self, offer: str, seconds: float) -> None:
        """Returns when the offer is not waiting any more, or the time is over."""
        if self._offers[offer].state == "waiting":
            changed = self._changed.setdefault(offer, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await changed.wait()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _checked(self, entries: Sequence[Entry]) -> bytes:
        """The entries as they are kept."""
        settings = self.settings
        if len(entries) > settings.max_files:
            raise FileError("TooMany", f"{len(entries)} files and directories; {settings.max_files} are taken at once")
        sightings = Sightings()
        for entry in entries:
            if not parts_of(entry.path):
                raise FileError("UnsafeName", "an empty path")
            if entry.kind == "other":
                raise FileError("NotAFile", "only files and directories are taken", entry.path)
            if entry.size > settings.max_file_size:
                words = f"it has {entry.size} bytes, {settings.max_file_size} are taken"
                raise FileError("TooLarge", words, entry.path)
            if not sightings.add(entry.path, directory=entry.kind == "directory"):
                raise FileError("Collision", "it is offered twice", entry.path)
        total = sum(entry.size for entry in entries)
        if total > settings.max_total:
            raise FileError("TooLarge", f"{total} bytes in all, {settings.max_total} are taken at once")
        return _encode(entries)

    async def _admit(self, name: str, entries: Sequence[Entry], body: bytes, peer: Peer) -> OfferSummary:
        trusted = self.settings.trusts(peer)
        known = self._offers.get(name)
        if known is not None:
            return await self._set(known, "accepted") if known.state == "waiting" and trusted else known
        self._make_room(peer)
        summary = OfferSummary(
            id=name,
            peer=peer.key.id52,
            name=peer.name,
            state="accepted" if trusted else "waiting",
            files=sum(entry.kind == "file" for entry in entries),
            bytes=sum(entry.size for entry in entries),
            created=int(time.time()),
            examples=list(dict.fromkeys(entry.path.partition("/")[0] for entry in entries))[:_EXAMPLES],
        )
        await asyncio.to_thread(self._write, summary, body)
        self._offers[name] = summary
        return summary

    def _make_room(self, peer: Peer) -> None:
        pending = [offer for offer in self._offers.values() if offer.state in ("waiting", "accepted")]
        if sum(offer.peer == peer.key.id52 for offer in pending) >= MAX_WAITING or len(pending) >= MAX_OFFERS:
            raise FileError("TooMany", "too many offers wait here already")
        settled = [offer for offer in self.all() if offer.state in ("finished", "rejected")]
        for offer in settled[: max(0, len(self._offers) + 1 - MAX_OFFERS)]:
            del self._offers[offer.id]
            for kind in ("json", "entries", "made"):
                self._path(offer.id, kind).unlink(missing_ok=True)

    async def _set(self, summary: OfferSummary, state: OfferState, *, force: bool = False) -> OfferSummary:
        changed = msgspec.structs.replace(summary, state=state, force=force)
        await asyncio.to_thread(write_atomically, self._path(summary.id, "json"), _as_text(changed))
        self._offers[summary.id] = changed
        event = self._changed.pop(summary.id, None)
        if event is not None:
            event.set()
        return changed

    def _write(self, summary: OfferSummary, body: bytes) -> None:
        make_directory(self._directory)
        write_atomically(self._path(summary.id, "entries"), body)
        write_atomically(self._path(summary.id, "json"), _as_text(summary))

    def _path(self, offer: str, kind: str) -> Path:
        return self._directory / f"{offer}.{kind}"


def _as_text(summary: OfferSummary) -> bytes:
    return msgspec.json.format(msgspec.json.encode(summary)) + b"\n"
