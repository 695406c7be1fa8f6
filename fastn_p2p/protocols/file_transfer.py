"""FileTransfer: lets peers get files from a directory, and offer files to an inbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request, stream
from fastn_p2p_client.session import Session

from ..files.destination import Destination
from ..files.failures import FileError
from ..files.frames import Frames
from ..files.inbox import Inbox
from ..files.intake import Intake
from ..files.messages import (
    Await,
    Decide,
    Entry,
    Fetch,
    List,
    Listing,
    Offer,
    OfferList,
    OfferReply,
    Offers,
    OfferSummary,
    Order,
    Request,
    Stat,
    Walk,
)
from ..files.names import parts_of
from ..files.settings import Settings
from ..files.source import Source
from ..files.supplying import supply
from ..files.tree import Tree
from ..files.walking import listing, report_walk

__all__ = ["FileTransfer"]

MAX_SESSIONS: Final = 16
"""Sessions of one peer at a time: each takes some memory, and threads."""
_LOOKS: Final = 4
"""Directories that are looked through at a time."""


class FileTransfer(Protocol):
    """Peers get files of a directory, and offer files for an inbox.

    What they may do is in ``Settings``; what is said in ``files.messages``. Only for peers, unless added otherwise.

    Raises (as application errors, with ``{"path"}`` when they are about one file): see ``files.failures``.
    """

    Config = Settings
    config: Settings

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._inbox = Inbox(context.workspace / "offers", self.config)
        self._intakes: dict[str, Intake] = {}
        self._admitting = asyncio.Lock()
        self._looking = asyncio.Semaphore(_LOOKS)
        self._sessions: Counter[str] = Counter()

    async def on_check(self) -> None:
        self.config.check()

    async def on_activate(self) -> None:
        await asyncio.to_thread(self._inbox.open)

    async def on_reload(self) -> None:
        self._inbox.settings = self.config

    async def describe_data(self) -> str:
        await asyncio.to_thread(self._inbox.open)
        offers = self._inbox.all()
        going = sum(offer.state in ("waiting", "accepted") for offer in offers)
        return (
            f"the record of {len(offers)} {'offer' if len(offers) == 1 else 'offers'}, {going} of them not finished; "
            "files that have arrived stay where they are"
        )

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    @request
    async def answer(self, request: Request, peer: Peer) -> Listing | Entry | OfferReply | OfferList:
        if isinstance(request, List):
            parts = parts_of(request.path)
            async with self._looking:
                return await asyncio.to_thread(listing, self._shared(), parts, request.after, request.limit)
        if isinstance(request, Stat):
            return await asyncio.to_thread(self._shared().stat, parts_of(request.path))
        if isinstance(request, Offer):
            return _reply(await self._inbox.add(request.entries, peer))
        if isinstance(request, Await):
            offer = self._inbox.of(request.offer, peer)
            await self._inbox.decided(offer.id, request.seconds)
            return _reply(self._inbox.of(request.offer, peer))
        if peer.key != self.context.key:
            raise FileError("NotOwner", "only the identity itself decides about its inbox")
        if isinstance(request, Offers):
            return OfferList(self._inbox.all())
        return await self._decide(request)

    async def _decide(self, request: Decide) -> OfferReply:
        offer = await self._inbox.decide(request.offer, accept=request.accept, force=request.force)
        inbox = self.config.received
        if offer.state == "rejected" and inbox is not None:
            entries = await self._inbox.entries(offer)
            intake = self._intakes.get(offer.id)
            if intake is not None:
                intake.abandon()
            await asyncio.to_thread(_discard, Destination(inbox, offer.peer), entries)
        return _reply(offer)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: Order) -> None:
        peer = session.peer.key.id52
        if self._sessions[peer] >= MAX_SESSIONS:
            raise FileError("TooMany", f"more than {MAX_SESSIONS} sessions at a time")
        self._sessions[peer] += 1
        try:
            if isinstance(order, Walk):
                await report_walk(session, self._shared(), parts_of(order.path))
            elif isinstance(order, Fetch):
                tree = self._shared()
                session.accept()
                await supply(Frames(session), lambda path: Source(tree, parts_of(path)))
            else:
                await self._receive(session, order.offer)
        finally:
            self._sessions[peer] -= 1
            if not self._sessions[peer]:
                del self._sessions[peer]

    async def _receive(self, session: Session, name: str) -> None:
        offer = self._inbox.of(name, session.peer)
        if offer.state == "waiting":
            raise FileError("OfferWaits", f"offer {offer.id} is not accepted yet")
        if offer.state == "rejected":
            raise FileError("OfferRejected", f"offer {offer.id} was rejected")
        if offer.state == "finished":
            session.accept()
            return
        intake = await self._intake(offer)
        intake.sessions += 1
        try:
            session.accept()
            await intake.serve(Frames(session))
        finally:
            intake.sessions -= 1
            if not intake.sessions and self._intakes.get(offer.id) is intake:
                del self._intakes[offer.id]

    async def _intake(self, offer: OfferSummary) -> Intake:
        """What the sessions of one offer share."""
        async with self._admitting:
            found = self._intakes.get(offer.id)
            if found is None:
                inbox = self.config.received
                if inbox is None:
                    raise FileError("NotShared", "no files are taken here any more")
                ours = await self._inbox.made(offer)
                destination = Destination(inbox, offer.peer, force=offer.force, ours=ours)
                entries = await self._inbox.entries(offer)
                found = Intake(entries, destination, lambda: self._inbox.finish(offer.id))
                made = await found.prepare()
                if ours.symmetric_difference(made):
                    await self._inbox.remember(offer, made)
                self._intakes[offer.id] = found
            return found

    def _shared(self) -> Tree:
        """Raises FileError: nothing is shared."""
        root = self.config.shared
        if root is None:
            raise FileError("NotShared", "no files are shared here")
        return Tree(root)


def _discard(destination: Destination, entries: list[Entry]) -> None:
    for entry in entries:
        if entry.kind == "file":
            destination.discard(entry.path)


def _reply(offer: OfferSummary) -> OfferReply:
    return OfferReply(offer.id, offer.state)
