"""``put``: offers files, waits until they are accepted, and answers what the other side wants of them."""

from __future__ import annotations

import time
from typing import Final

from ....concurrency import run_all
from ..errors import FileError
from ..events import (
    AlreadyPresent,
    EntrySkipped,
    Event,
    FileCompleted,
    FileLost,
    FileProgress,
    OfferChanged,
    OnEvent,
    TransferSummary,
)
from ..file_system.work_pool import WorkPool
from ..framing import FrameStream
from ..messages import MAX_SIZE, MAX_WAIT, OfferReply, UploadOffer
from ..retry import TransferRetry
from ..transport import FilesTransport
from .offer_manifest import OfferManifest
from .sender import send_files

_LOOK: Final = MAX_WAIT - 5
"""Seconds that one question takes for whether somebody has decided."""


class Upload:
    """One ``FilesClient.put``; see there."""

    def __init__(
        self,
        files: FilesTransport,
        manifest: OfferManifest,
        *,
        wait: float | None,
        report: OnEvent,
        patience: float,
        parallel: int,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._wait = wait
        self._parallel = max(1, min(parallel, manifest.files))
        self.tally = TransferSummary(report)
        self._patience = TransferRetry(self.tally, patience)
        self._arrived: set[str] = set()
        self._share = WorkPool(self._parallel, each=self._parallel).share("")

    async def run(self) -> TransferSummary:
        for skipped in self._manifest.skipped:
            self.tally(EntrySkipped(skipped.path, skipped.reason))
        standing = await self._patience.run(self._files.offer, self._manifest.entries)
        self._tell(standing)
        standing = await self._wait_for_decision(standing)
        if standing.state == "rejected":
            raise FileError("OfferRejected", f"offer {standing.offer} was rejected")
        if standing.state == "accepted":
            await run_all(*(self._patience.run(self._work, standing.offer) for _ in range(self._parallel)))
            standing = await self._patience.run(self._files.await_offer, standing.offer)
            if standing.state != "finished" and not self.tally.failures:
                self._watch(FileLost("", "Busy", "the other side has not got everything; put the same files again"))
        else:
            for entry in self._manifest.entries:
                if entry.kind == "file":
                    self.tally(AlreadyPresent(entry.path, entry.size))
        self._tell(standing)
        return self.tally

    async def _wait_for_decision(self, offer: OfferReply) -> OfferReply:
        """The offer once it is not waiting any more. Raises ``OfferWaits``."""
        end = None if self._wait is None else time.monotonic() + self._wait
        while offer.state == "waiting":
            seconds = _LOOK if end is None else min(_LOOK, end - time.monotonic())
            if seconds <= 0:
                raise FileError("OfferWaits", f"offer {offer.offer} waits for somebody to accept it")
            offer = await self._patience.run(self._files.await_offer, offer.offer, seconds)
            if offer.state != "waiting":
                self._tell(offer)
            self._patience.reset()
        return offer

    async def _work(self, offer: str) -> None:
        """Serves the other side on one session, until it wants nothing more."""
        async with await self._files.open(UploadOffer(offer)) as session:
            await send_files(FrameStream(session), self._manifest.open, self._share, self._watch)

    def _tell(self, offer: OfferReply) -> None:
        self.tally(OfferChanged(offer.offer, offer.state, self._manifest.files, min(self._manifest.bytes, MAX_SIZE)))

    def _watch(self, event: Event) -> None:
        if isinstance(event, FileProgress | FileCompleted | AlreadyPresent):
            self._patience.reset()
        if isinstance(event, FileCompleted):
            self._arrived.add(event.path)
        elif isinstance(event, AlreadyPresent):
            if event.path in self._arrived:
                return  # the other side has begun anew, and looked what is there
            self._arrived.add(event.path)
            event = AlreadyPresent(event.path, self._manifest.size_of(event.path))
        self.tally(event)
