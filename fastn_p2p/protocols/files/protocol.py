"""FileTransfer: lets peers get files from a directory, and offer files to an inbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Final

from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request, stream
from fastn_p2p_client.session.session import Session

from ...concurrency import open_in_thread
from .config import FileTransferConfig
from .errors import FileError
from .file_system.checkpoints import Checkpoints
from .file_system.safe_paths import parts_of
from .file_system.safe_tree import SafeTree
from .file_system.source_file import SourceFile
from .file_system.walk import listed, send_walk
from .file_system.work_pool import WorkPool
from .framing import FrameStream
from .messages import (
    Contents,
    DecideOffer,
    DirectoryPage,
    DownloadFiles,
    Entry,
    ListDirectory,
    ListOffers,
    OfferFiles,
    OfferList,
    OfferPage,
    OfferReply,
    OfferSummary,
    Request,
    SessionRequest,
    Stat,
    WaitForDecision,
    WalkDirectory,
)
from .receiving.destination import Destination
from .receiving.offer_inbox import OfferInbox
from .receiving.offer_receiver import OfferReceiver, accepts_by_name
from .sending.sender import send_files, send_whole

MAX_SESSIONS: Final = 16
"""Sessions of one peer at a time: each takes some memory, and threads."""
MAX_WALKS: Final = 4
"""Walks of one peer at a time: each keeps two descriptors open for each level of directories that it is in."""


class FileTransfer(Protocol):
    """Peers get files of a directory, and offer files for an inbox.

    What they may do is in ``FileTransferConfig``; what is said in ``files.messages``. Only for peers, unless added
    otherwise.

    Raises (as application errors, with ``{"path"}`` when they are about one file): see ``files.failures``.
    """

    Config = FileTransferConfig
    config: FileTransferConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._inbox = OfferInbox(context.workspace / "offers", self.config, lambda offer: offer in self._coming)
        self._coming: dict[str, _Coming] = {}
        self._pool = WorkPool()
        self._checkpoints = Checkpoints()
        self._sessions: Counter[str] = Counter()
        self._walks: Counter[str] = Counter()

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
    async def answer(self, request: Request, peer: Peer) -> DirectoryPage | Entry | OfferReply | OfferList | OfferPage:
        if isinstance(request, ListDirectory):
            parts = parts_of(request.path)
            share = self._pool.share(peer.key.id52)
            return await listed(share, self._shared(), parts, request.after, request.limit)
        if isinstance(request, Stat):
            return await asyncio.to_thread(self._shared().stat, parts_of(request.path))
        if isinstance(request, OfferFiles):
            return _reply(await self._inbox.add(request.entries, peer, self._pool.share(peer.key.id52)))
        if isinstance(request, WaitForDecision):
            offer = self._inbox.offer_from(request.offer, peer)
            await self._inbox.decided(offer.id, request.seconds)
            return _reply(self._inbox.offer_from(request.offer, peer))
        if peer.key != self.context.key:
            raise FileError("NotOwner", "only the identity itself decides about its inbox")
        if isinstance(request, ListOffers):
            return OfferList(self._inbox.all())
        if isinstance(request, Contents):
            return await self._inbox.contents(request.offer, request.after, request.limit)
        return await self._decide(request)

    async def _decide(self, request: DecideOffer) -> OfferReply:
        offer = await self._inbox.decide(
            request.offer, accept=request.accept, force=request.force, hidden=request.hidden, names=request.names
        )
        if offer.state == "rejected":
            coming = self._coming.get(offer.id)
            if coming is not None and coming.intake is not None:
                coming.intake.abandon()
            await self._inbox.clean(offer)
        return _reply(offer)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: SessionRequest | str) -> None:
        peer = session.peer.key.id52
        if self._sessions[peer] >= MAX_SESSIONS:
            raise FileError("TooMany", f"more than {MAX_SESSIONS} sessions at a time")
        self._sessions[peer] += 1
        try:
            if isinstance(order, str):
                await self._send_whole(session, order)
            elif isinstance(order, WalkDirectory):
                await self._walk(session, order.path)
            elif isinstance(order, DownloadFiles):
                tree = self._shared()
                session.accept()
                find = partial(_source, tree, self._checkpoints)
                await send_files(FrameStream(session), find, self._pool.share(peer))
            else:
                await self._receive(session, order.offer)
        finally:
            self._sessions[peer] -= 1
            if not self._sessions[peer]:
                del self._sessions[peer]

    async def _walk(self, session: Session, path: str) -> None:
        peer = session.peer.key.id52
        if self._walks[peer] >= MAX_WALKS:
            raise FileError("TooMany", f"more than {MAX_WALKS} directories are walked at a time")
        self._walks[peer] += 1
        try:
            await send_walk(session, self._pool.share(peer), self._shared(), parts_of(path))
        finally:
            self._walks[peer] -= 1
            if not self._walks[peer]:
                del self._walks[peer]

    async def _receive(self, session: Session, name: str) -> None:
        offer = self._inbox.offer_from(name, session.peer)
        if offer.state == "waiting":
            raise FileError("OfferWaits", f"offer {offer.id} is not accepted yet")
        if offer.state == "rejected":
            raise FileError("OfferRejected", f"offer {offer.id} was rejected")
        if offer.state == "finished":
            session.accept()
            return
        coming = self._coming.setdefault(offer.id, _Coming())
        coming.sessions += 1
        try:
            async with coming.preparing:
                if coming.intake is None:
                    coming.intake = await self._intake(offer)
            session.accept()
            await coming.intake.serve(FrameStream(session))
        finally:
            coming.sessions -= 1
            if not coming.sessions and self._coming.get(offer.id) is coming:
                del self._coming[offer.id]

    async def _intake(self, offer: OfferSummary) -> OfferReceiver:
        """What the sessions of one offer share."""
        inbox = self.config.received
        if inbox is None:
            raise FileError("NotShared", "no files are taken here any more")
        ours = await self._inbox.created_directories(offer)
        destination = Destination(
            inbox,
            offer.peer,
            force=offer.force,
            created_directories=ours,
            checkpoints=self._checkpoints,
            on_arrival=partial(self._inbox.note_arrived, offer),
        )

        intake = OfferReceiver(
            await self._inbox.entries(offer),
            destination,
            await self._inbox.arrived(offer),
            await self._inbox.sent_by(offer.peer),
            accepts_by_name(offer.names, everything=offer.hidden),
            self._pool.share(offer.peer),
            partial(self._inbox.finish, offer.id),
        )
        made = await intake.prepare()
        if ours.symmetric_difference(made):
            await self._inbox.remember_made(offer, made)
        return intake

    async def _send_whole(self, session: Session, path: str) -> None:
        """Send one file and nothing else: what a plain text asks for."""
        source = await open_in_thread(SourceFile, self._shared(), parts_of(path))
        session.accept()
        await send_whole(session, source)

    def _shared(self) -> SafeTree:
        """Raises FileError: nothing is shared."""
        root = self.config.shared
        if root is None:
            raise FileError("NotShared", "no files are shared here")
        return SafeTree(root)


class _Coming:
    """The sessions on which one offer's files come."""

    def __init__(self) -> None:
        self.sessions = 0
        self.preparing = asyncio.Lock()
        self.intake: OfferReceiver | None = None


def _source(tree: SafeTree, checkpoints: Checkpoints, path: str) -> SourceFile:
    return SourceFile(tree, parts_of(path), checkpoints=checkpoints)


def _reply(offer: OfferSummary) -> OfferReply:
    return OfferReply(offer.id, offer.state)
