"""Upload: offers files, waits until the peer accepts them, and sends those that it requests."""

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
from ..files_transport import FilesTransport
from ..framing import FrameStream
from ..messages import MAX_SIZE, MAX_WAIT, OfferReply, UploadOffer
from ..retry import TransferRetry
from .offer_manifest import OfferManifest
from .sender import send_files

_DECISION_POLL: Final = MAX_WAIT - 5
"""Seconds that one request waits for the peer's decision."""


class Upload:
    """Upload of one offer; ``FilesClient.put`` documents the arguments."""

    def __init__(
        self,
        files: FilesTransport,
        manifest: OfferManifest,
        *,
        wait: float | None,
        report: OnEvent,
        retry_timeout: float,
        parallel: int,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._wait = wait
        self._parallel = max(1, min(parallel, manifest.files))
        self.summary = TransferSummary(report)
        self._retry = TransferRetry(self.summary, retry_timeout)
        self._arrived: set[str] = set()
        self._share = WorkPool(self._parallel, each=self._parallel).share("")

    async def run(self) -> TransferSummary:
        for skipped in self._manifest.skipped:
            self.summary(EntrySkipped(skipped.path, skipped.reason))
        offer = await self._retry.run(self._files.offer, self._manifest.entries)
        self._report(offer)
        offer = await self._wait_for_decision(offer)
        if offer.state == "rejected":
            raise FileError("OfferRejected", f"the peer has rejected offer {offer.offer}")
        if offer.state == "accepted":
            await run_all(*(self._retry.run(self._send, offer.offer) for _ in range(self._parallel)))
            offer = await self._retry.run(self._files.await_offer, offer.offer)
            if offer.state != "finished" and not self.summary.failures:
                self._on_event(FileLost("", "Busy", "the peer has not received everything: put the same files again"))
        else:
            for entry in self._manifest.entries:
                if entry.kind == "file":
                    self.summary(AlreadyPresent(entry.path, entry.size))
        self._report(offer)
        return self.summary

    async def _wait_for_decision(self, offer: OfferReply) -> OfferReply:
        """Return the offer once it no longer waits. Raises FileError ``OfferWaits``."""
        end = None if self._wait is None else time.monotonic() + self._wait
        while offer.state == "waiting":
            seconds = _DECISION_POLL if end is None else min(_DECISION_POLL, end - time.monotonic())
            if seconds <= 0:
                raise FileError("OfferWaits", f"the peer has not accepted offer {offer.offer} yet")
            offer = await self._retry.run(self._files.await_offer, offer.offer, seconds)
            if offer.state != "waiting":
                self._report(offer)
            self._retry.reset()
        return offer

    async def _send(self, offer: str) -> None:
        """Send the files that the peer requests on one session."""
        async with await self._files.open(UploadOffer(offer)) as session:
            await send_files(FrameStream(session), self._manifest.open, self._share, self._on_event)

    def _report(self, offer: OfferReply) -> None:
        self.summary(OfferChanged(offer.offer, offer.state, self._manifest.files, min(self._manifest.bytes, MAX_SIZE)))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, FileProgress | FileCompleted | AlreadyPresent):
            self._retry.reset()
        if isinstance(event, FileCompleted):
            self._arrived.add(event.path)
        elif isinstance(event, AlreadyPresent):
            if event.path in self._arrived:
                return  # a new session: the peer has found the file that it received before
            self._arrived.add(event.path)
            event = AlreadyPresent(event.path, self._manifest.size_of(event.path))
        self.summary(event)
