"""Directories on both sides of a file transfer: one that a peer shares, and one that takes offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.events import Event, TransferSummary
from fastn_p2p.protocols.files.receiving.partial_file import partial_name
from fastn_p2p.protocols.files.sending.offer_manifest import OfferManifest
from tests.support.file_peers import ALICE, InProcessClient

__all__ = ["OfferInbox", "SharedDirectory"]


class SharedDirectory:
    """A directory that alice shares, and a local one to get files into."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.to = directory / "to"
        self.root.mkdir()
        self.to.mkdir()
        self.client = InProcessClient(directory / "workspace", root=str(self.root))
        self.events: list[Event] = []

    async def get(self, *paths: str, client: InProcessClient | None = None, **options: Any) -> TransferSummary:
        self.events.clear()
        files = (client or self.client).files()
        return await files.get(list(paths) or ["/"], self.to, report=self.events.append, **options)

    def partial(self, name: str) -> Path:
        return self.to / partial_name(name, ALICE.id52)

    def failures(self, summary: TransferSummary) -> dict[str, str]:
        return {each.path: each.kind for each in summary.failures}


class OfferInbox:
    """Local files, and alice's inbox for offers."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.home = directory / "home"
        self.inbox = directory / "inbox"
        self.home.mkdir()
        self.inbox.mkdir()
        self.client = InProcessClient(directory / "workspace", inbox=str(self.inbox), **config)
        self.events: list[Event] = []

    def scan(self, *names: str) -> OfferManifest:
        return OfferManifest.scan([self.home / name for name in names or ["things"]])

    async def put(self, *names: str, client: InProcessClient | None = None, **options: Any) -> TransferSummary:
        files = (client or self.client).files()
        return await files.put(self.scan(*names), report=self.events.append, **{"wait": 0, **options})

    async def offers(self) -> list[f.OfferSummary]:
        return list(await self.client.as_peer(ALICE).files().offers())

    async def decide(self, *, accept: bool, force: bool = False) -> f.OfferReply:
        (offer,) = await self.offers()
        return await self.client.as_peer(ALICE).files().decide(offer.id, accept=accept, force=force)

    def failures(self, summary: TransferSummary) -> dict[str, str]:
        return {each.path: each.kind for each in summary.failures}
