"""Inbox: what peers have offered, how each offer stands, and how much of it is kept before its receiver has decided.

An offer waits until its receiver accepts or rejects it; a trusted peer's is accepted at once. Before consent little is
kept: ``MAX_LIST`` bytes for one list of files, ``MAX_LISTS`` for all of one peer. An offer that has ended, however it
did, is in nobody's way: only waiting offers count against a peer, and the oldest ones that have ended are forgotten
first, with everything that they have left behind.
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
"""Offers of one peer that wait; one more is refused. Of those that were accepted and have not arrived completely as
many are remembered."""
MAX_OFFERS: Final = 256
"""Offers that are kept; the oldest that have ended go first."""
MAX_LIST: Final = 64 * 1024
"""Bytes that are kept of one offer's list before it is accepted: some thousands of files."""
MAX_LISTS: Final = 1024 * 1024
"""Bytes that are kept of one peer's lists that are not accepted."""
EXPIRES: Final = 30 * 24 * 3600
"""Seconds after which an offer ends that nobody has decided about, or whose files have not come."""
_EXAMPLES: Final = 3
_EXAMPLE: Final = 200
"""Characters of an example."""
_STEP: Final = 500
"""Files that one step looks at."""

log = logging.getLogger(__name__)


class OfferInbox:
    """Used inside one event loop.

    Args:
        directory: of its own.
        is_active: whether files of an offer are coming at the moment.
        clock: seconds since 1970.

    Attributes:
        settings: what is taken, and from whom; may change.
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
        self._offers: dict[str, OfferSummary] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._changing = asyncio.Lock()

    def open(self) -> None:
        """Read what there is. What is damaged is left out, and the log says so. Blocks."""
        self._offers.update((summary.id, summary) for summary in self._store.load())

    def all(self) -> list[OfferSummary]:
        """The newest last."""
        return sorted(self._offers.values(), key=lambda offer: offer.created)

    def offer_from(self, offer: str, peer: Peer) -> OfferSummary:
        """An offer that the peer itself has made.

        Raises:
            FileError: ``OfferUnknown``.
        """
        summary = self._offers.get(offer)
        if summary is None or summary.peer != peer.key.id52:
            raise FileError("OfferUnknown", f"there is no offer {offer[:64]} of yours here")
        return summary

    async def add(self, entries: Sequence[Entry], peer: Peer, share: Share) -> OfferSummary:
        """Take an offer, or recognise one: the same files from the same peer. A trusted peer's is accepted at once.

        An offer whose files have arrived and are not all there any more stands as a new one.

        Raises:
            FileError: ``NotShared``, ``UnsafeName``, ``Collision``, ``NotAFile``, ``TooLarge``, ``TooMany``.
            StorageFailed: it cannot be kept.
        """
        if self.settings.inbox is None:
            raise FileError("NotShared", "no files are taken here")
        trusted = self.settings.trusts(peer)
        packed = await share.run(self._checked, entries, trusted=trusted)
        name = short_digest(bytes(peer.key), as_msgpack(entries))
        known = self._offers.get(name)
        complete = known is not None and known.state == "finished" and await self._is_complete(known, entries, share)
        async with self._changing:
            known = self._offers.get(name)
            if known is None:
                return await self._admit(name, entries, packed, peer, trusted=trusted)
            if known.state == "finished" and not complete:
                known = await self._set(known, "accepted" if trusted else "waiting")
            elif known.state == "waiting" and trusted:
                known = await self._set(known, "accepted")
            return known

    async def entries(self, offer: OfferSummary) -> list[Entry]:
        """What was offered.

        Raises:
            FileError: ``OfferUnknown``: it cannot be read any more.
        """
        return await asyncio.to_thread(self._store.entries, offer.id)

    async def contents(self, offer: str, after: str, limit: int) -> OfferPage:
        """Return what an offer holds, in order of paths, as its receiver sees it.

        Raises:
            FileError: ``OfferUnknown``.
        """
        return await asyncio.to_thread(self._page, self._known(offer), after, limit)

    async def created_directories(self, offer: OfferSummary) -> frozenset[str]:
        """Directories that were made for an offer, by this process or an earlier one."""
        return await asyncio.to_thread(self._store.made, offer.id)

    async def remember_made(self, offer: OfferSummary, made: Sequence[str]) -> None:
        """Raises StorageFailed."""
        await asyncio.to_thread(self._store.set_made, offer.id, made)

    async def arrived(self, offer: OfferSummary) -> dict[str, Seal]:
        """Files that have come, by this process or an earlier one."""
        return await asyncio.to_thread(self._store.arrived, offer.id)

    def note_arrived(self, offer: OfferSummary, path: str, seal: Seal) -> None:
        """Note that a file of an offer has come. Blocks."""
        self._store.add_arrived(offer.id, path, seal)

    async def sent_by(self, peer: str) -> frozenset[tuple[int, int, int]]:
        """Inode, size and time of change of the files that a peer has sent with any offer that is remembered."""
        own = [offer.id for offer in self._offers.values() if offer.peer == peer]

        def seals() -> frozenset[tuple[int, int, int]]:
            return frozenset(seal[:3] for each in own for seal in self._store.arrived(each).values())

        return await asyncio.to_thread(seals)

    async def finish(self, offer: str, failed: int) -> None:
        """Note that nothing of an offer is missing but ``failed`` files that were not taken.

        Raises:
            StorageFailed: it stands as before.
        """
        async with self._changing:
            summary = self._offers.get(offer)
            if summary is not None and summary.state == "accepted":
                summary = msgspec.structs.replace(summary, failed=failed)
                await self._set(summary, "accepted" if failed else "finished")

    async def decide(
        self, offer: str, *, accept: bool, force: bool, hidden: bool = False, names: Sequence[str] = ()
    ) -> OfferSummary:
        """Accept or reject an offer, also one about which something else was decided before.

        Args:
            hidden: flagged names are accepted too;
            names: of them only these, and what is below them. What was accepted by name before stays accepted.

        Raises:
            FileError: ``OfferUnknown``; ``NotFound``: one of the names is not flagged in it.
            StorageFailed: it stands as before.
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
        """Returns when the offer is not waiting any more, or the time is over."""
        if self._offers[offer].state == "waiting":
            changed = self._changed.setdefault(offer, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await changed.wait()

    async def clean(self, offer: OfferSummary) -> None:
        """Delete what unfinished files and empty directories of an offer are in the inbox."""
        await asyncio.to_thread(self._clean, offer)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _known(self, offer: str) -> OfferSummary:
        summary = self._offers.get(offer)
        if summary is None:
            raise FileError("OfferUnknown", f"there is no offer {offer[:64]} here")
        return summary

    def _page(self, offer: OfferSummary, after: str, limit: int) -> OfferPage:
        entries = sorted(self._store.entries(offer.id), key=lambda entry: entry.path)
        page = [entry for entry in entries if entry.path > after][: limit + 1]
        return OfferPage([_seen(entry, offer) for entry in page[:limit]], len(page) > limit)

    def _checked(self, entries: Sequence[Entry], *, trusted: bool) -> bytes:
        """Return the entries as they are kept."""
        settings = self.settings
        if len(entries) > settings.max_files:
            raise FileError("TooMany", f"{len(entries)} files and directories; {settings.max_files} are taken at once")
        packed = pack(entries)
        if not trusted and len(packed) > MAX_LIST:
            words = f"their list takes {len(packed)} bytes, and {MAX_LIST} are kept before an offer is accepted"
            raise FileError("TooLarge", f"{words}: offer fewer files at a time, or one archive of them")
        sightings = PathSet()
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
        return packed

    async def _is_complete(self, offer: OfferSummary, entries: Sequence[Entry], share: Share) -> bool:
        """Return whether every file of a finished offer is still there as it came."""
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

    async def _admit(
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
        return summary

    async def _make_room(self, new: OfferSummary) -> None:
        """Forget offers that have ended, or that the new one replaces. Raises FileError: ``TooMany``."""
        for offer in self.all():
            expired = max(offer.created, offer.decided) + EXPIRES < self._clock()
            if expired and offer.state in ("waiting", "accepted") and not self._is_active(offer.id):
                await self._forget(offer)
        own = [offer for offer in self.all() if offer.peer == new.peer]
        for offer in own:  # the same files, which have changed since: what was offered is not there any more
            if offer.state == new.state == "waiting" and offer.paths == new.paths:
                await self._forget(offer, clean=False)
        own = [offer for offer in self.all() if offer.peer == new.peer]
        if new.state == "waiting":
            waiting = [offer for offer in own if offer.state == "waiting"]
            rejected = [offer for offer in own if offer.state == "rejected"]
            kept = sum(offer.kept for offer in (*waiting, *rejected))
            for offer in rejected:
                if kept + new.kept > MAX_LISTS:
                    kept -= offer.kept
                    await self._forget(offer)
            if len(waiting) >= MAX_WAITING or kept + new.kept > MAX_LISTS:
                days = EXPIRES // 86400
                words = f"{len(waiting)} of your offers wait here already, until they are decided or {days} days old"
                raise FileError("TooMany", words)
        accepted = [offer for offer in own if offer.state == "accepted" and not self._is_active(offer.id)]
        for offer in accepted[: max(0, len(accepted) + 1 - MAX_WAITING)]:
            await self._forget(offer)
        if len(self._offers) >= MAX_OFFERS:
            await self._forget(self._least_needed(new.peer))

    def _least_needed(self, peer: str) -> OfferSummary:
        """Raises FileError: ``TooMany``."""
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
            raise FileError("TooMany", "too many offers wait here already")
        return greedy[0]

    async def _forget(self, offer: OfferSummary, *, clean: bool = True) -> None:
        del self._offers[offer.id]
        self._wake(offer.id)
        if clean and offer.state != "finished":
            await self.clean(offer)
        try:
            await asyncio.to_thread(self._store.remove, offer.id)
        except OSError as error:
            log.error("offer %s cannot be removed: %s", offer.id, error)

    def _clean(self, offer: OfferSummary) -> None:
        inbox = self.settings.received
        if inbox is None:
            return
        destination = Destination(inbox, offer.peer)
        with contextlib.suppress(FileError):
            for entry in self._store.entries(offer.id):
                if entry.kind == "file":
                    destination.discard(entry.path)
        destination.remove_empty(self._store.made(offer.id))

    async def _set(self, summary: OfferSummary, state: OfferState) -> OfferSummary:
        changed = msgspec.structs.replace(summary, state=state, decided=int(self._clock()))
        await asyncio.to_thread(self._store.update, changed)
        self._offers[summary.id] = changed
        if state != "waiting":
            self._wake(summary.id)
        return changed

    def _wake(self, offer: str) -> None:
        event = self._changed.pop(offer, None)
        if event is not None:
            event.set()


def _risks(entry: Entry) -> list[Risk]:
    return risks_of(entry.path, entry.mode, directory=entry.kind == "directory")


def _seen(entry: Entry, summary: OfferSummary) -> OfferedEntry:
    risks = _risks(entry)
    accepted = bool(risks) and (summary.hidden or is_named(entry.path, summary.names))
    time_ns = entry.mtime_ns + entry.mtime_rest
    return OfferedEntry(entry.path, entry.kind, entry.size, time_ns, entry.mode, risks, accepted)
