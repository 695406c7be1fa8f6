"""FileTransfer: peers get files from a directory, and offer files to an inbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Final

from fastn_p2p_client.protocol import BindingContext, Peer, Permissions, Protocol, request, stream
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
"""Sessions of one peer at the same time: each needs memory and threads."""
MAX_WALKS: Final = 4
"""Walks of one peer at the same time: each keeps two descriptors open for each level of directories."""


class FileTransfer(Protocol):
    """Shared directory and inbox of one identity.

    ``FileTransferConfig`` says which directories peers may use; the messages are in ``files.messages``. By default only
    peers in the address book may call it.

    Raises (as application errors, with ``{"path"}`` if they are about one file): see ``files.errors``.
    """

    Config = FileTransferConfig
    config: FileTransferConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._inbox = OfferInbox(context.workspace / "offers", self.config, lambda offer: offer in self._arriving)
        self._inbox.on_waiting = context.report_waiting
        self._arriving: dict[str, _ArrivingOffer] = {}
        self._pool = WorkPool()
        self._checkpoints = Checkpoints()
        self._sessions: Counter[str] = Counter()
        self._walks: Counter[str] = Counter()

    @classmethod
    def permissions(cls, config: FileTransferConfig) -> Permissions:
        return Permissions(
            read=[] if config.root is None else [config.root], write=[] if config.inbox is None else [config.inbox]
        )

    @classmethod
    def keeps_state(cls, config: FileTransferConfig) -> bool:
        return config.inbox is not None

    async def on_check(self) -> None:
        self.config.check()

    async def on_activate(self) -> None:
        await asyncio.to_thread(self._inbox.open)
        self._inbox.count_waiting()

    async def on_reload(self) -> None:
        self._inbox.settings = self.config

    async def describe_data(self) -> str:
        await asyncio.to_thread(self._inbox.open)
        offers = self._inbox.all()
        unfinished = sum(offer.state in ("waiting", "accepted") for offer in offers)
        return (
            f"the record of {len(offers)} {'offer' if len(offers) == 1 else 'offers'}, {unfinished} of them not "
            "finished; files that have arrived stay where they are"
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
            raise FileError("NotOwner", "only the identity itself may decide about its inbox")
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
            arriving = self._arriving.get(offer.id)
            if arriving is not None and arriving.receiver is not None:
                arriving.receiver.abandon()
            await self._inbox.clean(offer)
        return _reply(offer)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: SessionRequest | str) -> None:
        peer = session.peer.key.id52
        if self._sessions[peer] >= MAX_SESSIONS:
            raise FileError("TooMany", f"more than {MAX_SESSIONS} sessions at the same time: end one first")
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
            raise FileError("TooMany", f"more than {MAX_WALKS} walks at the same time: wait until one ends")
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
        arriving = self._arriving.setdefault(offer.id, _ArrivingOffer())
        arriving.sessions += 1
        try:
            async with arriving.preparing:
                if arriving.receiver is None:
                    arriving.receiver = await self._offer_receiver(offer)
            session.accept()
            await arriving.receiver.serve(FrameStream(session))
        finally:
            arriving.sessions -= 1
            if not arriving.sessions and self._arriving.get(offer.id) is arriving:
                del self._arriving[offer.id]

    async def _offer_receiver(self, offer: OfferSummary) -> OfferReceiver:
        """Return a new receiver for the sessions of one offer."""
        inbox = self.config.received
        if inbox is None:
            raise FileError("NotShared", "this peer no longer accepts files")
        known = await self._inbox.created_directories(offer)
        destination = Destination(
            inbox,
            offer.peer,
            force=offer.force,
            created_directories=known,
            checkpoints=self._checkpoints,
            on_arrival=partial(self._inbox.note_arrived, offer),
        )

        receiver = OfferReceiver(
            await self._inbox.entries(offer),
            destination,
            await self._inbox.arrived(offer),
            await self._inbox.sent_by(offer.peer),
            accepts_by_name(offer.names, everything=offer.hidden),
            self._pool.share(offer.peer),
            partial(self._inbox.finish, offer.id),
        )
        created = await receiver.prepare()
        if known.symmetric_difference(created):
            await self._inbox.save_created_directories(offer, created)
        return receiver

    async def _send_whole(self, session: Session, path: str) -> None:
        """Send the content of one file without frames: the reply to a session that was opened with a plain path."""
        source = await open_in_thread(SourceFile, self._shared(), parts_of(path))
        session.accept()
        await send_whole(session, source)

    def _shared(self) -> SafeTree:
        """Return the shared directory. Raises FileError if there is none."""
        root = self.config.shared
        if root is None:
            raise FileError("NotShared", "this peer shares no files")
        return SafeTree(root)


class _ArrivingOffer:
    """Sessions on which the files of one offer arrive, and their common receiver."""

    def __init__(self) -> None:
        self.sessions = 0
        self.preparing = asyncio.Lock()
        self.receiver: OfferReceiver | None = None


def _source(tree: SafeTree, checkpoints: Checkpoints, path: str) -> SourceFile:
    return SourceFile(tree, parts_of(path), checkpoints=checkpoints)


def _reply(offer: OfferSummary) -> OfferReply:
    return OfferReply(offer.id, offer.state)
