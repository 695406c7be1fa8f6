"""Inbox of offers: their states, and limits of the data that is kept before the receiver has decided.

An offer waits until its receiver accepts or rejects it; an offer of a trusted peer is accepted at once. Before that
little is kept: ``MAX_LIST`` bytes for one list of files, ``MAX_LISTS`` for all lists of one peer. An offer that was
finished, rejected or accepted does not block others: only waiting offers count against a peer, and the oldest ended
offers are forgotten first, with their partial files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.protocol import Peer

from ..._shared.name_risks import Risk, is_named, risks_of
from ..config import FileTransferConfig
from ..digest import short_digest
from ..errors import FileError
from ..file_system.path_set import PathSet
from ..file_system.safe_paths import parts_of
from ..file_system.safe_tree import SafeTree
from ..file_system.work_pool import Share
from ..messages import MAX_SIZE, Entry, OfferedEntry, OfferPage, OfferState, OfferSummary
from .arrivals import Seal, is_there
from .destination import Destination
from .offer_store import OfferStore, as_msgpack, pack

MAX_WAITING: Final = 16
"""Offers of one peer that may wait; a further one is refused. The same number of accepted, incomplete offers is kept.
"""
MAX_OFFERS: Final = 256
"""Offers that are kept; the oldest ended ones are forgotten first."""
MAX_LIST: Final = 64 * 1024
"""Bytes of an offer's list that are kept before it is accepted: some thousands of files."""
MAX_LISTS: Final = 1024 * 1024
"""Bytes of all lists of one peer that are kept without being accepted."""
EXPIRES: Final = 30 * 24 * 3600
"""Seconds (30 days) after which an offer expires that is not decided, or whose files have not arrived."""
_EXAMPLES: Final = 3
"""Paths in ``OfferSummary.examples``."""
_EXAMPLE: Final = 200
"""Characters of one example."""
_STEP: Final = 500
"""Files that one step checks."""

log = logging.getLogger(__name__)


class OfferInbox:
    """Offers of all peers, used inside one event loop.

    Args:
        directory: used by this inbox only.
        is_active: returns whether files of an offer are arriving now.
        clock: returns seconds since 1970.

    Attributes:
        settings: the config; may be replaced.
        on_waiting: called with the number of offers that wait for a decision, after each change of an offer.
    """

    def __init__(
        self,
        directory: Path,
        settings: FileTransferConfig,
        is_active: Callable[[str], bool] = lambda _offer: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = OfferStore(directory)
        self.settings = settings
        self._is_active = is_active
        self._clock = clock
        self.on_waiting: Callable[[int], object] = lambda _: None
        self._offers: dict[str, OfferSummary] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._changing = asyncio.Lock()

    def open(self) -> None:
        """Read all offers from disk. A damaged one is left out and logged. Blocks."""
        self._offers.update((summary.id, summary) for summary in self._store.load())

    def count_waiting(self) -> None:
        """Report the number of offers that wait for a decision."""
        self.on_waiting(sum(offer.state == "waiting" for offer in self._offers.values()))

    def all(self) -> list[OfferSummary]:
        """Return all offers, the newest last."""
        return sorted(self._offers.values(), key=lambda offer: offer.created)

    def offer_from(self, offer: str, peer: Peer) -> OfferSummary:
        """Return an offer that this peer has made.

        Raises:
            FileError: ``OfferUnknown``.
        """
        summary = self._offers.get(offer)
        if summary is None or summary.peer != peer.key.id52:
            raise FileError("OfferUnknown", f"this peer knows no offer {offer[:64]} of yours: offer the files again")
        return summary

    async def add(self, entries: Sequence[Entry], peer: Peer, share: Share) -> OfferSummary:
        """Add an offer, or recognise it: the same files from the same peer. Accept that of a trusted peer at once.

        A finished offer of which a file has since changed or disappeared is treated as a new one.

        Raises:
            FileError: ``NotShared``, ``UnsafeName``, ``Collision``, ``NotAFile``, ``TooLarge``, ``TooMany``.
            StorageFailed: it cannot be stored.
        """
        if self.settings.inbox is None:
            raise FileError("NotShared", "this peer accepts no files")
        trusted = self.settings.trusts(peer)
        packed = await share.run(self._checked, entries, trusted=trusted)
        name = short_digest(bytes(peer.key), as_msgpack(entries))
        known = self._offers.get(name)
        complete = known is not None and known.state == "finished" and await self._is_complete(known, entries, share)
        async with self._changing:
            known = self._offers.get(name)
            if known is None:
                return await self._add_offer(name, entries, packed, peer, trusted=trusted)
            if known.state == "finished" and not complete:
                known = await self._set(known, "accepted" if trusted else "waiting")
            elif known.state == "waiting" and trusted:
                known = await self._set(known, "accepted")
            return known

    async def entries(self, offer: OfferSummary) -> list[Entry]:
        """Return the entries of an offer.

        Raises:
            FileError: ``OfferUnknown``: they cannot be read.
        """
        return await asyncio.to_thread(self._store.entries, offer.id)

    async def contents(self, offer: str, after: str, limit: int) -> OfferPage:
        """Return a page of an offer's entries, in order of paths, for its receiver.

        Raises:
            FileError: ``OfferUnknown``.
        """
        return await asyncio.to_thread(self._page, self._known(offer), after, limit)

    async def created_directories(self, offer: OfferSummary) -> frozenset[str]:
        """Return the directories that were made for an offer, by this process or an earlier one."""
        return await asyncio.to_thread(self._store.created_directories, offer.id)

    async def save_created_directories(self, offer: OfferSummary, created: Sequence[str]) -> None:
        """Store the directories that were made for an offer. Raises StorageFailed."""
        await asyncio.to_thread(self._store.save_created_directories, offer.id, created)

    async def arrived(self, offer: OfferSummary) -> dict[str, Seal]:
        """Return the files that have arrived, with their seals, from this process or an earlier one."""
        return await asyncio.to_thread(self._store.arrived, offer.id)

    def note_arrived(self, offer: OfferSummary, path: str, seal: Seal) -> None:
        """Store that a file of an offer has arrived. Blocks."""
        self._store.add_arrived(offer.id, path, seal)

    async def sent_by(self, peer: str) -> frozenset[tuple[int, int, int]]:
        """Return inode, size and time of change of the files that a peer has sent with any known offer."""
        own = [offer.id for offer in self._offers.values() if offer.peer == peer]

        def seals() -> frozenset[tuple[int, int, int]]:
            return frozenset(seal[:3] for each in own for seal in self._store.arrived(each).values())

        return await asyncio.to_thread(seals)

    async def finish(self, offer: str, failed: int) -> None:
        """Store that no file of an offer is missing, except ``failed`` ones that were declined.

        Raises:
            StorageFailed: its state is unchanged.
        """
        async with self._changing:
            summary = self._offers.get(offer)
            if summary is not None and summary.state == "accepted":
                summary = msgspec.structs.replace(summary, failed=failed)
                await self._set(summary, "accepted" if failed else "finished")

    async def decide(
        self, offer: str, *, accept: bool, force: bool, hidden: bool = False, names: Sequence[str] = ()
    ) -> OfferSummary:
        """Accept or reject an offer. A decision may be changed until the offer is finished.

        Args:
            hidden: accept flagged names too: all of them if ``names`` is empty.
            names: flagged paths to accept, with everything below them. Names that were accepted before stay accepted.

        Raises:
            FileError: ``OfferUnknown``; ``NotFound``: one of the names is not flagged in the offer.
            StorageFailed: its state is unchanged.
        """
        entries = await self.entries(self._known(offer)) if names else []
        for name in names:
            if not any(is_named(entry.path, (name,)) and _risks(entry) for entry in entries):
                raise FileError("NotFound", "the offer has no hidden, executable or odd file of this name", name)
        async with self._changing:
            summary = self._known(offer)
            if summary.state == "finished":
                return summary
            before = summary.names if accept else []
            summary = msgspec.structs.replace(
                summary,
                force=accept and force,
                hidden=accept and ((hidden and not names) or summary.hidden),
                names=list(dict.fromkeys([*before, *names])),
            )
            return await self._set(summary, "accepted" if accept else "rejected")

    async def decided(self, offer: str, seconds: float) -> None:
        """Wait until the offer no longer waits, at most ``seconds``."""
        if self._offers[offer].state == "waiting":
            changed = self._changed.setdefault(offer, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await changed.wait()

    async def clean(self, offer: OfferSummary) -> None:
        """Delete the partial files and empty directories of an offer."""
        await asyncio.to_thread(self._clean, offer)

    # ── internals ────────────────────────────────────────────────────────────────────────────────

    def _known(self, offer: str) -> OfferSummary:
        summary = self._offers.get(offer)
        if summary is None:
            raise FileError("OfferUnknown", f"there is no offer {offer[:64]}; list them: fastn-p2p files offers")
        return summary

    def _page(self, offer: OfferSummary, after: str, limit: int) -> OfferPage:
        entries = sorted(self._store.entries(offer.id), key=lambda entry: entry.path)
        page = [entry for entry in entries if entry.path > after][: limit + 1]
        return OfferPage([_offered_entry(entry, offer) for entry in page[:limit]], len(page) > limit)

    def _checked(self, entries: Sequence[Entry], *, trusted: bool) -> bytes:
        """Check an offer; return its entries as they are stored. Raises FileError."""
        settings = self.settings
        if len(entries) > settings.max_files:
            limit = settings.max_files
            raise FileError("TooMany", f"{len(entries)} files and directories; at most {limit} are accepted at once")
        packed = pack(entries)
        if not trusted and len(packed) > MAX_LIST:
            reason = f"the list has {len(packed)} bytes; at most {MAX_LIST} are kept before an offer is accepted"
            raise FileError("TooLarge", f"{reason}. Offer fewer files at a time, or one archive of them")
        seen = PathSet()
        for entry in entries:
            if not parts_of(entry.path):
                raise FileError("UnsafeName", "an empty path")
            if entry.kind == "other":
                raise FileError("NotAFile", "only files and directories are accepted", entry.path)
            if entry.size > settings.max_file_size:
                reason = f"it has {entry.size} bytes; at most {settings.max_file_size} are accepted"
                raise FileError("TooLarge", reason, entry.path)
            if not seen.add(entry.path, directory=entry.kind == "directory"):
                raise FileError("Collision", "it is offered twice", entry.path)
        total = sum(entry.size for entry in entries)
        if total > settings.max_total:
            raise FileError("TooLarge", f"{total} bytes in all; at most {settings.max_total} are accepted at once")
        return packed

    async def _is_complete(self, offer: OfferSummary, entries: Sequence[Entry], share: Share) -> bool:
        """Return whether every file of a finished offer is still on disk as it arrived."""
        inbox = self.settings.received
        if inbox is None:
            return True
        arrived = await self.arrived(offer)
        paths = [entry.path for entry in entries if entry.kind == "file"]
        tree = SafeTree(inbox)

        def are_there(some: list[str]) -> bool:
            return all(is_there(tree, path, arrived) for path in some)

        for begin in range(0, len(paths), _STEP):
            if not await share.run(are_there, paths[begin : begin + _STEP]):
                return False
        return True

    async def _add_offer(
        self, name: str, entries: Sequence[Entry], packed: bytes, peer: Peer, *, trusted: bool
    ) -> OfferSummary:
        flagged = [entry.path[:_EXAMPLE] for entry in entries if _risks(entry)]
        tops = (entry.path.partition("/")[0] for entry in entries)
        now = int(self._clock())
        summary = OfferSummary(
            id=name,
            peer=peer.key.id52,
            name=peer.name,
            state="accepted" if trusted else "waiting",
            files=sum(entry.kind == "file" for entry in entries),
            bytes=min(sum(entry.size for entry in entries), MAX_SIZE),
            created=now,
            examples=list(dict.fromkeys([*flagged[:_EXAMPLES], *tops]))[:_EXAMPLES],
            flagged=len(flagged),
            decided=now,
            kept=len(packed),
            paths=short_digest(*sorted(entry.path.encode() for entry in entries)),
        )
        await self._make_room(summary)
        await asyncio.to_thread(self._store.add, summary, packed)
        self._offers[name] = summary
        self.count_waiting()
        return summary

    async def _make_room(self, new: OfferSummary) -> None:
        """Forget expired, replaced and ended offers until the new one fits. Raises FileError ``TooMany``."""
        for offer in self.all():
            expired = max(offer.created, offer.decided) + EXPIRES < self._clock()
            if expired and offer.state in ("waiting", "accepted") and not self._is_active(offer.id):
                await self._remove(offer)
        own = [offer for offer in self.all() if offer.peer == new.peer]
        for offer in own:  # the same paths with other content: the sender no longer has the files of the old offer
            if offer.state == new.state == "waiting" and offer.paths == new.paths:
                await self._remove(offer, clean=False)
        own = [offer for offer in self.all() if offer.peer == new.peer]
        if new.state == "waiting":
            waiting = [offer for offer in own if offer.state == "waiting"]
            rejected = [offer for offer in own if offer.state == "rejected"]
            kept = sum(offer.kept for offer in (*waiting, *rejected))
            for offer in rejected:
                if kept + new.kept > MAX_LISTS:
                    kept -= offer.kept
                    await self._remove(offer)
            if len(waiting) >= MAX_WAITING or kept + new.kept > MAX_LISTS:
                days = EXPIRES // 86400
                reason = f"{len(waiting)} of your offers wait already, until they are decided or {days} days old"
                raise FileError("TooMany", reason)
        accepted = [offer for offer in own if offer.state == "accepted" and not self._is_active(offer.id)]
        for offer in accepted[: max(0, len(accepted) + 1 - MAX_WAITING)]:
            await self._remove(offer)
        if len(self._offers) >= MAX_OFFERS:
            await self._remove(self._least_needed(new.peer))

    def _least_needed(self, peer: str) -> OfferSummary:
        """Return the offer to forget for a new one of ``peer``. Raises FileError ``TooMany``."""
        ended = [each for each in self.all() if each.state != "waiting" and not self._is_active(each.id)]
        for state in ("finished", "rejected", "accepted"):
            for offer in ended:
                if offer.state == state:
                    return offer
        waiting: dict[str, list[OfferSummary]] = {}
        for offer in self.all():
            waiting.setdefault(offer.peer, []).append(offer)
        greedy = max(waiting.values(), key=len)
        if len(greedy) <= len(waiting.get(peer, ())):
            raise FileError("TooMany", "too many offers wait already: try again when some are decided")
        return greedy[0]

    async def _remove(self, offer: OfferSummary, *, clean: bool = True) -> None:
        del self._offers[offer.id]
        self.count_waiting()
        self._wake(offer.id)
        if clean and offer.state != "finished":
            await self.clean(offer)
        try:
            await asyncio.to_thread(self._store.remove, offer.id)
        except OSError as error:
            log.error("the files of offer %s cannot be removed; remove them by hand: %s", offer.id, error)

    def _clean(self, offer: OfferSummary) -> None:
        inbox = self.settings.received
        if inbox is None:
            return
        destination = Destination(inbox, offer.peer)
        with contextlib.suppress(FileError):
            for entry in self._store.entries(offer.id):
                if entry.kind == "file":
                    destination.discard(entry.path)
        destination.remove_empty(self._store.created_directories(offer.id))

    async def _set(self, summary: OfferSummary, state: OfferState) -> OfferSummary:
        changed = msgspec.structs.replace(summary, state=state, decided=int(self._clock()))
        await asyncio.to_thread(self._store.update, changed)
        self._offers[summary.id] = changed
        self.count_waiting()
        if state != "waiting":
            self._wake(summary.id)
        return changed

    def _wake(self, offer: str) -> None:
        event = self._changed.pop(offer, None)
        if event is not None:
            event.set()


def _risks(entry: Entry) -> list[Risk]:
    return risks_of(entry.path, entry.mode, directory=entry.kind == "directory")


def _offered_entry(entry: Entry, summary: OfferSummary) -> OfferedEntry:
    risks = _risks(entry)
    accepted = bool(risks) and (summary.hidden or is_named(entry.path, summary.names))
    time_ns = entry.mtime_ns + entry.mtime_rest
    return OfferedEntry(entry.path, entry.kind, entry.size, time_ns, entry.mode, risks, accepted)
