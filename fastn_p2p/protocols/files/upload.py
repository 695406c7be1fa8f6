"""``put``: offers files, waits until they are accepted, and answers what the other side wants of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ...concurrency import together
from .errors import FileError
from .events import Done, Event, Kept, Lost, Moved, Offered, Omitted, Report
from .framing import Frames
from .messages import MAX_SIZE, MAX_WAIT, OfferReply, Send
from .offer_manifest import Manifest
from .retry import Patience
from .sender import supply
from .tally import Tally
from .work_pool import WorkPool

if TYPE_CHECKING:
    from .client import Files

__all__ = ["Upload"]

_LOOK: Final = MAX_WAIT - 5
"""Seconds that one question takes for whether somebody has decided."""


class Upload:
    """One ``Files.put``; see there."""

    def __init__(
        self, files: Files, manifest: Manifest, *, wait: float | None, report: Report, patience: float, parallel: int
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._wait = wait
        self._parallel = max(1, min(parallel, manifest.files))
        self.tally = Tally(report)
        self._patience = Patience(self.tally, patience)
        self._arrived: set[str] = set()
        self._share = WorkPool(self._parallel, each=self._parallel).share("")

    async def run(self) -> Tally:
        for skipped in self._manifest.skipped:
            self.tally(Omitted(skipped.path, skipped.reason))
        standing = await self._patience.insist(self._files.offer, self._manifest.entries)
        self._tell(standing)
        standing = await self._decided(standing)
        if standing.state == "rejected":
            raise FileError("OfferRejected", f"offer {standing.offer} was rejected")
        if standing.state == "accepted":
            await together(*(self._patience.insist(self._work, standing.offer) for _ in range(self._parallel)))
            standing = await self._patience.insist(self._files.await_offer, standing.offer)
            if standing.state != "finished" and not self.tally.failures:
                self._watch(Lost("", "Busy", "the other side has not got everything; put the same files again"))
        else:
            for entry in self._manifest.entries:
                if entry.kind == "file":
                    self.tally(Kept(entry.path, entry.size))
        self._tell(standing)
        return self.tally

    async def _decided(self, standing: OfferReply) -> OfferReply:
        """The offer once it is not waiting any more. Raises ``OfferWaits``."""
        end = None if self._wait is None else time.monotonic() + self._wait
        while standing.state == "waiting":
            seconds = _LOOK if end is None else min(_LOOK, end - time.monotonic())
            if seconds <= 0:
                raise FileError("OfferWaits", f"offer {standing.offer} waits for somebody to accept it")
            standing = await self._patience.insist(self._files.await_offer, standing.offer, seconds)
            if standing.state != "waiting":
                self._tell(standing)
            self._patience.progress()
        return standing

    async def _work(self, offer: str) -> None:
        """Serves the other side on one session, until it wants nothing more."""
        async with await self._files.open(Send(offer)) as session:
            await supply(Frames(session), self._manifest.open, self._share, self._watch)

    def _tell(self, standing: OfferReply) -> None:
        self.tally(Offered(standing.offer, standing.state, self._manifest.files, min(self._manifest.bytes, MAX_SIZE)))

    def _watch(self, event: Event) -> None:
        if isinstance(event, Moved | Done | Kept):
            self._patience.progress()
        if isinstance(event, Done):
            self._arrived.add(event.path)
        elif isinstance(event, Kept):
            if event.path in self._arrived:
                return  # the other side has begun anew, and looked what is there
            self._arrived.add(event.path)
            event = Kept(event.path, self._manifest.size_of(event.path))
        self.tally(event)
