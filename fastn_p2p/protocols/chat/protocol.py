"""Chat: conversations with peers, kept by both sides, delivered once and in order, whoever is away meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from fastn_p2p_client.chat.messages import (
    ChatMessage,
    ConversationList,
    Delivered,
    DeliverMessages,
    DeliveryProblem,
    FollowConversation,
    GetHistory,
    HistoryEnd,
    MarkRead,
    MessagePage,
    OpenPresence,
    ReadReceipt,
    Request,
    SendMessage,
    StateChanged,
)
from fastn_p2p_client.errors import ApplicationError, BadMessage, Overloaded
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request, stream
from fastn_p2p_client.session import framing
from fastn_p2p_client.session.session import Session

from ...concurrency import run_all
from .config import ChatConfig
from .delivery import PeerDelivery
from .ledger import Ledger
from .line import PeerTransport
from .message_store import (
    MessageStore,
    holdings,
)
from .open_conversations import (
    ConversationId,
    OpenConversations,
    TerminalQueue,
)
from .presence import PresenceSender

MAX_SESSIONS: Final = 16
"""By which one peer says that it is here."""
_FILE: Final = "chat.db"
"""In the workspace."""
_MAX_TERMINALS: Final = 64
"""Of the owner's."""
_MAX_CALLS: Final = 4
"""Of one peer at a time; its binding makes one."""

_shown: Final = msgspec.msgpack.Decoder(MarkRead)


class Chat(Protocol):
    """Conversations that both sides keep, and that go on whoever is away meanwhile.

    What is said is in ``chat.messages``. Only for peers, unless added otherwise; a peer uses its alias of the same
    name.

    Raises (as application errors): ``NotOwner``: that only the identity itself may ask. ``TooManyWaiting``,
    ``TooManyPeers``, ``TooManySessions``: a limit is reached. ``NoConversation``: with oneself there is none.
    """

    Config = ChatConfig
    config: ChatConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._couriers: dict[str, PeerDelivery] = {}
        self._calls: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()

    async def on_activate(self) -> None:
        self._ledger = Ledger(self.context.workspace / _FILE, self.config)
        self._rooms = OpenConversations(
            lambda place: PresenceSender(PeerTransport(self.context, place.peer), place.conversation)
        )
        await self._ledger.open()
        await self._ledger.do(MessageStore.prune_all)
        for peer in await self._ledger.do(MessageStore.peers_with_work):
            self._delivery_to(peer).wake()

    async def on_reload(self) -> None:
        self._ledger.reload(self.config)
        await self._ledger.do(MessageStore.prune_all)

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
    async def answer(self, request: Request, peer: Peer) -> Delivered | ChatMessage | MessagePage | ConversationList:
        if isinstance(request, DeliverMessages | ReadReceipt):
            return await self._answer_peer(request, peer.key.id52)
        self._check_owner(peer)
        if isinstance(request, SendMessage):
            return await self._say(request)
        if isinstance(request, GetHistory):
            self._check_other(request.peer)
            return MessagePage(
                await self._ledger.do(
                    MessageStore.recall, request.peer, request.conversation, request.before, request.limit
                )
            )
        return ConversationList(await self._ledger.do(MessageStore.conversations))

    async def _answer_peer(self, request: DeliverMessages | ReadReceipt, peer: str) -> Delivered:
        if self._calls[peer] >= _MAX_CALLS:
            raise Overloaded(what="messages of one peer at a time", limit=_MAX_CALLS)
        self._calls[peer] += 1
        try:
            work = self._deliver(peer, request) if isinstance(request, DeliverMessages) else self._viewed(peer, request)
            return await work
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]

    async def _say(self, request: SendMessage) -> ChatMessage:
        self._check_other(request.peer)
        line, new = await self._ledger.do(
            MessageStore.add_sent, request.peer, request.conversation, request.id, request.text, _now()
        )
        if new:
            self._rooms.publish(ConversationId(request.peer, request.conversation), line)
        self._delivery_to(request.peer).wake()
        return line

    async def _deliver(self, peer: str, request: DeliverMessages) -> Delivered:
        self._check_other(peer)
        for line in await self._ledger.do(
            MessageStore.add_received, peer, request.conversation, request.messages, _now()
        ):
            self._rooms.publish(ConversationId(peer, request.conversation), line)
        return Delivered()

    async def _viewed(self, peer: str, request: ReadReceipt) -> Delivered:
        for id in await self._ledger.do(MessageStore.mark_read_by_peer, peer, request.conversation, request.ids):
            self._rooms.publish(ConversationId(peer, request.conversation), StateChanged(id, "seen"))
        return Delivered()

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: FollowConversation | OpenPresence) -> None:
        peer = session.peer
        if isinstance(order, FollowConversation):
            self._check_owner(peer)
            self._check_other(order.peer)
            await self._counted(peer, _MAX_TERMINALS, self._serve_terminal(session, order))
        else:
            self._check_other(peer.key.id52)
            await self._counted(peer, MAX_SESSIONS, self._serve_presence(session, order))

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

    async def _serve_presence(self, session: Session, order: OpenPresence) -> None:
        place = ConversationId(session.peer.key.id52, order.conversation)
        session.accept()
        self._rooms.peer_came(place)
        try:
            if await session.read():
                raise BadMessage(reason="nothing is said in this session")
        finally:
            self._rooms.peer_left(place)

    async def _serve_terminal(self, session: Session, order: FollowConversation) -> None:
        place = ConversationId(order.peer, order.conversation)
        room, terminal = self._rooms.enter(place)
        try:
            lines = await self._ledger.do(MessageStore.recall, order.peer, order.conversation, None, order.last or 1)
            newest = lines[-1].seq if lines else 0
            for line in lines if order.last else ():
                await framing.send_message(session, line)
            await framing.send_message(session, HistoryEnd(room.presence))
            words = self._delivery_to(order.peer).last_error
            if words:
                await framing.send_message(session, DeliveryProblem(words))
            await run_all(self._tell(session, terminal, newest), self._listen(session, place))
        except _Left:
            return
        finally:
            await self._rooms.leave(place, terminal)

    async def _tell(self, session: Session, terminal: TerminalQueue, newest: int) -> None:
        """What happens in the conversation; messages up to ``newest`` were told already."""
        while not terminal.overrun:
            event = await terminal.next()
            if not (isinstance(event, ChatMessage) and event.seq <= newest):
                await framing.send_message(session, event)
        raise ApplicationError("TooSlow", "this terminal does not read what happens")

    async def _listen(self, session: Session, place: ConversationId) -> None:
        while (said := await framing.receive_message(session, _shown)) is not None:
            if await self._ledger.do(MessageStore.mark_read_here, place.peer, place.conversation, said.seq):
                self._delivery_to(place.peer).wake()
        raise _Left

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def _delivery_to(self, peer: str) -> PeerDelivery:
        courier = self._couriers.get(peer)
        if courier is None:
            courier = self._couriers[peer] = PeerDelivery(
                PeerTransport(self.context, peer),
                self._ledger,
                delivered=lambda conversation, ids: self._delivered(ConversationId(peer, conversation), ids),
                trouble=lambda words: self._rooms.tell_all(peer, DeliveryProblem(words)),
            )
        return courier

    def _delivered(self, place: ConversationId, ids: list[str]) -> None:
        for id in ids:
            self._rooms.publish(place, StateChanged(id, "delivered"))

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
