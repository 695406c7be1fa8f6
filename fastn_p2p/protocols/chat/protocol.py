"""Chat: conversations with peers, kept by both sides, delivered once and in order, whoever is away meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from fastn_p2p_client.chat.messages import (
    Attend,
    Deliver,
    Done,
    Join,
    Joined,
    KnownList,
    Line,
    Lines,
    Marked,
    Recall,
    Request,
    Say,
    Shown,
    Trouble,
    Viewed,
)
from fastn_p2p_client.errors import ApplicationError, BadMessage, Overloaded
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request, stream
from fastn_p2p_client.session import framing as frames
from fastn_p2p_client.session.session import Session

from ...concurrency import together
from .config import Settings
from .delivery import Courier
from .ledger import Ledger
from .line import PeerLine
from .message_store import (
    History,
    holdings,
)
from .open_conversations import (
    Place,
    Rooms,
    Terminal,
)
from .presence import Attendance

__all__ = ["Chat"]

MAX_SESSIONS: Final = 16
"""By which one peer says that it is here."""
_FILE: Final = "chat.db"
"""In the workspace."""
_MAX_TERMINALS: Final = 64
"""Of the owner's."""
_MAX_CALLS: Final = 4
"""Of one peer at a time; its binding makes one."""

_shown: Final = msgspec.msgpack.Decoder(Shown)


class Chat(Protocol):
    """Conversations that both sides keep, and that go on whoever is away meanwhile.

    What is said is in ``chat.messages``. Only for peers, unless added otherwise; a peer uses its alias of the same
    name.

    Raises (as application errors): ``NotOwner``: that only the identity itself may ask. ``TooManyWaiting``,
    ``TooManyPeers``, ``TooManySessions``: a limit is reached. ``NoConversation``: with oneself there is none.
    """

    Config = Settings
    config: Settings

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._couriers: dict[str, Courier] = {}
        self._calls: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()

    async def on_activate(self) -> None:
        self._ledger = Ledger(self.context.workspace / _FILE, self.config)
        self._rooms = Rooms(lambda place: Attendance(PeerLine(self.context, place.peer), place.conversation))
        await self._ledger.open()
        await self._ledger.do(History.prune_all)
        for peer in await self._ledger.do(History.peers_with_work):
            self._courier(peer).wake()

    async def on_reload(self) -> None:
        self._ledger.reload(self.config)
        await self._ledger.do(History.prune_all)

    async def on_deactivate(self) -> None:
        await self._rooms.close()
        for courier in self._couriers.values():
            await courier.close()
        await self._ledger.close()

    async def describe_data(self) -> str:
        messages, peers, waiting = await asyncio.to_thread(holdings, self.context.workspace / _FILE)
        return (
            f"{messages} {'message' if messages == 1 else 'messages'} of conversations with "
            f"{peers} {'peer' if peers == 1 else 'peers'}, {waiting} of them not delivered yet"
        )

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    @request
    async def answer(self, request: Request, peer: Peer) -> Done | Line | Lines | KnownList:
        if isinstance(request, Deliver | Viewed):
            return await self._answer_peer(request, peer.key.id52)
        self._check_owner(peer)
        if isinstance(request, Say):
            return await self._say(request)
        if isinstance(request, Recall):
            self._check_other(request.peer)
            return Lines(
                await self._ledger.do(History.recall, request.peer, request.conversation, request.before, request.limit)
            )
        return KnownList(await self._ledger.do(History.conversations))

    async def _answer_peer(self, request: Deliver | Viewed, peer: str) -> Done:
        if self._calls[peer] >= _MAX_CALLS:
            raise Overloaded(what="messages of one peer at a time", limit=_MAX_CALLS)
        self._calls[peer] += 1
        try:
            work = self._deliver(peer, request) if isinstance(request, Deliver) else self._viewed(peer, request)
            return await work
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]

    async def _say(self, request: Say) -> Line:
        self._check_other(request.peer)
        line, new = await self._ledger.do(
            History.keep_mine, request.peer, request.conversation, request.id, request.text, _now()
        )
        if new:
            self._rooms.tell(Place(request.peer, request.conversation), line)
        self._courier(request.peer).wake()
        return line

    async def _deliver(self, peer: str, request: Deliver) -> Done:
        self._check_other(peer)
        for line in await self._ledger.do(History.keep_theirs, peer, request.conversation, request.messages, _now()):
            self._rooms.tell(Place(peer, request.conversation), line)
        return Done()

    async def _viewed(self, peer: str, request: Viewed) -> Done:
        for id in await self._ledger.do(History.seen_there, peer, request.conversation, request.ids):
            self._rooms.tell(Place(peer, request.conversation), Marked(id, "seen"))
        return Done()

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: Join | Attend) -> None:
        peer = session.peer
        if isinstance(order, Join):
            self._check_owner(peer)
            self._check_other(order.peer)
            await self._counted(peer, _MAX_TERMINALS, self._show(session, order))
        else:
            self._check_other(peer.key.id52)
            await self._counted(peer, MAX_SESSIONS, self._attend(session, order))

    async def _counted(self, peer: Peer, limit: int, serve: Coroutine[Any, Any, None]) -> None:
        key = peer.key.id52
        if self._sessions[key] >= limit:
            serve.close()
            raise ApplicationError("TooManySessions", f"more than {limit} at a time", {"limit": limit})
        self._sessions[key] += 1
        try:
            await serve
        finally:
            self._sessions[key] -= 1
            if not self._sessions[key]:
                del self._sessions[key]

    async def _attend(self, session: Session, order: Attend) -> None:
        place = Place(session.peer.key.id52, order.conversation)
        session.accept()
        self._rooms.peer_came(place)
        try:
            if await session.read():
                raise BadMessage(reason="nothing is said in this session")
        finally:
            self._rooms.peer_left(place)

    async def _show(self, session: Session, order: Join) -> None:
        place = Place(order.peer, order.conversation)
        room, terminal = self._rooms.enter(place)
        try:
            lines = await self._ledger.do(History.recall, order.peer, order.conversation, None, order.last or 1)
            newest = lines[-1].seq if lines else 0
            for line in lines if order.last else ():
                await frames.send(session, line)
            await frames.send(session, Joined(room.presence))
            words = self._courier(order.peer).words
            if words:
                await frames.send(session, Trouble(words))
            await together(self._tell(session, terminal, newest), self._listen(session, place))
        except _Left:
            return
        finally:
            await self._rooms.leave(place, terminal)

    async def _tell(self, session: Session, terminal: Terminal, newest: int) -> None:
        """What happens in the conversation; messages up to ``newest`` were told already."""
        while not terminal.overrun:
            event = await terminal.next()
            if not (isinstance(event, Line) and event.seq <= newest):
                await frames.send(session, event)
        raise ApplicationError("TooSlow", "this terminal does not read what happens")

    async def _listen(self, session: Session, place: Place) -> None:
        while (said := await frames.receive(session, _shown)) is not None:
            if await self._ledger.do(History.shown_here, place.peer, place.conversation, said.seq):
                self._courier(place.peer).wake()
        raise _Left

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def _courier(self, peer: str) -> Courier:
        courier = self._couriers.get(peer)
        if courier is None:
            courier = self._couriers[peer] = Courier(
                PeerLine(self.context, peer),
                self._ledger,
                delivered=lambda conversation, ids: self._delivered(Place(peer, conversation), ids),
                trouble=lambda words: self._rooms.tell_all(peer, Trouble(words)),
            )
        return courier

    def _delivered(self, place: Place, ids: list[str]) -> None:
        for id in ids:
            self._rooms.tell(place, Marked(id, "delivered"))

    def _check_owner(self, peer: Peer) -> None:
        if peer.key != self.context.key:
            raise ApplicationError("NotOwner", "only the identity itself may ask that")

    def _check_other(self, peer: str) -> None:
        """Raises InvalidKey, or ApplicationError."""
        if PublicKey(peer) == self.context.key:
            raise ApplicationError("NoConversation", "an identity has no conversation with itself")


class _Left(Exception):
    """A terminal has closed its side."""


def _now() -> int:
    return time.time_ns() // 1_000_000
