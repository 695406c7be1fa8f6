"""Chat: conversations that both identities store. Messages are delivered once and in order, also after an absence."""

from __future__ import annotations

import asyncio
import contextlib
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
from fastn_p2p_client.errors import ApplicationError, BadMessage, Overloaded, StorageUnavailable
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Peer, Permissions, Protocol, request, stream
from fastn_p2p_client.session import framing
from fastn_p2p_client.session.session import Session

from ...concurrency import run_all
from ...console.formatting import format_count
from .._shared.binding_store import BindingStore, check_store, store_permissions
from .config import ChatConfig
from .delivery import PeerDelivery, PeerTransport
from .message_store import NUMBERED_TABLES, SCHEMA, SMALL_TABLES, MessageStore, MessageTables, count_contents
from .open_conversations import ConversationId, OpenConversations, TerminalQueue
from .presence import PresenceSender

MAX_SESSIONS: Final = 16
"""Presence sessions of one peer."""
_FILE: Final = "chat.db"
"""File name in the workspace."""
_MAX_TERMINALS: Final = 64
"""Sessions of the owner's terminals."""
_MAX_CALLS: Final = 4
"""Concurrent calls of one peer. Its binding makes one at a time."""

_mark_read: Final = msgspec.msgpack.Decoder(MarkRead)


class Chat(Protocol):
    """Conversations that both identities store, and that continue after an absence.

    ``fastn_p2p_client.chat.messages`` has the messages. By default peers in the address book may use it. A peer uses
    its instance of the same name.

    Raises (as application errors):
        NotOwner: only the identity itself may send this request.
        TooManyWaiting, TooManyPeers, TooManySessions: a limit is reached.
        NotHome: another daemon is the home of the conversations. What came here before can be read here.
        NoConversation: an identity has no conversation with itself.
    """

    Config = ChatConfig
    config: ChatConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._deliveries: dict[str, PeerDelivery] = {}
        self._calls: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()
        self._stores = BindingStore(context, SCHEMA, numbered=NUMBERED_TABLES, small=SMALL_TABLES)
        self._resuming: asyncio.Task[None] | None = None

    @classmethod
    def permissions(cls, config: ChatConfig) -> Permissions:
        return store_permissions(config.store)

    @classmethod
    def keeps_state(cls, config: ChatConfig) -> bool:
        return True

    async def on_check(self) -> None:
        await asyncio.to_thread(check_store, self.config.store)

    async def on_activate(self) -> None:
        await self._open_store(self.config)
        self._open = OpenConversations(lambda id: PresenceSender(PeerTransport(self.context, id.peer), id.conversation))
        await self._begin_resuming()

    async def on_reload(self) -> None:
        before = self._store.config
        if self.config.store != before.store:
            await self._close_store()
            try:
                await self._open_store(self.config)
            except BaseException:
                await self._open_store(before)
                raise
        self._store.config = self.config
        await self._begin_resuming()

    async def on_home_changed(self) -> None:
        if self._store.config.store:
            await self._close_store()
            await self._open_store(self._store.config)
            await self._begin_resuming()
            self.context.report_problem("")

    def _is_closed_on_standby(self) -> bool:
        """Return whether the store belongs to the home alone: a database has one holder."""
        return bool(self._store.config.store and self.home_elsewhere)

    async def on_deactivate(self) -> None:
        await self._open.close()
        await self._close_store()

    async def on_delete(self) -> None:
        await asyncio.to_thread(self._stores.delete, self.config.store)

    async def describe_data(self) -> str:
        messages, peers, waiting = await asyncio.to_thread(
            self._stores.read_once, self.config.store, self.context.workspace / _FILE, count_contents
        )
        return (
            f"{format_count(messages, 'message')} of conversations with {format_count(peers, 'peer')}, "
            f"{waiting} of them not delivered yet{self._stores.location(self.config.store)}"
        )

    async def _open_store(self, config: ChatConfig) -> None:
        database = self._stores.make(config.store, self.context.workspace / _FILE, self._on_ready)
        self._store = MessageStore(database, config)
        if not self._is_closed_on_standby():
            await self._store.open()

    async def _close_store(self) -> None:
        self._stop_resuming()
        for delivery in self._deliveries.values():
            await delivery.close()
        self._deliveries.clear()
        await self._store.close()

    async def _begin_resuming(self) -> None:
        """Resume. A database is not waited for: a hook has little time."""
        if self._store.config.store:
            self._on_ready()
        else:
            await self._resume()

    def _on_ready(self) -> None:
        self._stop_resuming()
        self._resuming = asyncio.create_task(self._resume())

    def _stop_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()

    async def _resume(self) -> None:
        """Delete what exceeds the limits, and deliver what waits, as soon as the database can be used."""
        if self._is_closed_on_standby():
            return
        with contextlib.suppress(StorageUnavailable):  # ``_on_ready`` follows
            await self._store.write(MessageTables.prune_all)
            for peer in await self._store.read(MessageTables.waiting_peers):
                self._delivery_to(peer).wake()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    @request
    async def answer(self, request: Request, peer: Peer) -> Delivered | ChatMessage | MessagePage | ConversationList:
        """Answer a request of the owner or of a peer's binding."""
        if isinstance(request, DeliverMessages | ReadReceipt):
            return await self._answer_peer(request, peer.key.id52)
        self._check_owner(peer)
        self._check_home(sends=isinstance(request, SendMessage))
        if isinstance(request, SendMessage):
            return await self._send(request)
        if isinstance(request, GetHistory):
            self._check_not_owner(request.peer)
            return MessagePage(
                await self._store.read(
                    MessageTables.history, request.peer, request.conversation, request.before, request.limit
                )
            )
        return ConversationList(await self._store.read(MessageTables.conversations))

    async def _answer_peer(self, request: DeliverMessages | ReadReceipt, peer: str) -> Delivered:
        if self._calls[peer] >= _MAX_CALLS:
            raise Overloaded(what="messages of one peer at a time", limit=_MAX_CALLS)
        self._calls[peer] += 1
        try:
            if isinstance(request, DeliverMessages):
                return await self._on_messages(peer, request)
            return await self._on_read_receipt(peer, request)
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]

    async def _send(self, request: SendMessage) -> ChatMessage:
        self._check_not_owner(request.peer)
        message, is_new = await self._store.write(
            MessageTables.add_sent, request.peer, request.conversation, request.id, request.text, _now_ms()
        )
        if is_new:
            self._open.publish(ConversationId(request.peer, request.conversation), message)
        self._delivery_to(request.peer).wake()
        return message

    async def _on_messages(self, peer: str, request: DeliverMessages) -> Delivered:
        self._check_not_owner(peer)
        for message in await self._store.write(
            MessageTables.add_received, peer, request.conversation, request.messages, _now_ms()
        ):
            self._open.publish(ConversationId(peer, request.conversation), message)
        return Delivered()

    async def _on_read_receipt(self, peer: str, request: ReadReceipt) -> Delivered:
        for id in await self._store.write(MessageTables.mark_read_by_peer, peer, request.conversation, request.ids):
            self._open.publish(ConversationId(peer, request.conversation), StateChanged(id, "seen"))
        return Delivered()

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    @stream
    async def serve(self, session: Session, order: FollowConversation | OpenPresence) -> None:
        """Serve a terminal of the owner, or the presence session of a peer."""
        peer = session.peer
        if isinstance(order, FollowConversation):
            self._check_owner(peer)
            self._check_home(sends=False)
            self._check_not_owner(order.peer)
            await self._limit_sessions(peer, _MAX_TERMINALS, self._serve_terminal(session, order))
        else:
            self._check_not_owner(peer.key.id52)
            await self._limit_sessions(peer, MAX_SESSIONS, self._serve_presence(session, order))

    async def _limit_sessions(self, peer: Peer, limit: int, serve: Coroutine[Any, Any, None]) -> None:
        key = peer.key.id52
        if self._sessions[key] >= limit:
            serve.close()
            raise ApplicationError("TooManySessions", f"limit reached: {limit} sessions at a time", {"limit": limit})
        self._sessions[key] += 1
        try:
            await serve
        finally:
            self._sessions[key] -= 1
            if not self._sessions[key]:
                del self._sessions[key]

    async def _serve_presence(self, session: Session, order: OpenPresence) -> None:
        id = ConversationId(session.peer.key.id52, order.conversation)
        session.accept()
        self._open.peer_joined(id)
        try:
            if await session.read():
                raise BadMessage(reason="a presence session carries no data")
        finally:
            self._open.peer_left(id)

    async def _serve_terminal(self, session: Session, order: FollowConversation) -> None:
        id = ConversationId(order.peer, order.conversation)
        conversation, terminal = self._open.add_terminal(id)
        try:
            messages = await self._store.read(
                MessageTables.history, order.peer, order.conversation, None, order.last or 1
            )
            newest = messages[-1].seq if messages else 0
            for message in messages if order.last else ():
                await framing.send_message(session, message)
            await framing.send_message(session, HistoryEnd(conversation.presence))
            problem = self._delivery_to(order.peer).last_error
            if problem:
                await framing.send_message(session, DeliveryProblem(problem))
            await run_all(self._send_events(session, terminal, newest), self._receive_marks(session, id))
        except _TerminalClosed:
            return
        finally:
            await self._open.remove_terminal(id, terminal)

    async def _send_events(self, session: Session, terminal: TerminalQueue, newest: int) -> None:
        """Send the events of a conversation, except messages up to ``newest``, which were sent before."""
        while not terminal.overrun:
            event = await terminal.next()
            if not (isinstance(event, ChatMessage) and event.seq <= newest):
                await framing.send_message(session, event)
        raise ApplicationError("TooSlow", "the terminal does not read its events")

    async def _receive_marks(self, session: Session, id: ConversationId) -> None:
        while (mark := await framing.receive_message(session, _mark_read)) is not None:
            if await self._store.write(MessageTables.mark_read_here, id.peer, id.conversation, mark.seq):
                self._delivery_to(id.peer).wake()
        raise _TerminalClosed

    # ── delivery ─────────────────────────────────────────────────────────────────────────────────

    def _delivery_to(self, peer: str) -> PeerDelivery:
        delivery = self._deliveries.get(peer)
        if delivery is None:
            delivery = self._deliveries[peer] = PeerDelivery(
                PeerTransport(self.context, peer),
                self._store,
                on_delivered=lambda conversation, ids: self._on_delivered(ConversationId(peer, conversation), ids),
                on_problem=lambda problem: self._open.publish_to_all(peer, DeliveryProblem(problem)),
                on_idle_changed=self._on_idle_changed,
            )
        return delivery

    def _on_idle_changed(self) -> None:
        self.context.stay_awake(not all(each.is_idle for each in self._deliveries.values()))

    def _on_delivered(self, id: ConversationId, messages: list[str]) -> None:
        for message in messages:
            self._open.publish(id, StateChanged(message, "delivered"))

    # ── checks ───────────────────────────────────────────────────────────────────────────────────

    def _check_owner(self, peer: Peer) -> None:
        if peer.key != self.context.key:
            raise ApplicationError("NotOwner", "only the identity itself may send this request")

    def _check_home(self, *, sends: bool) -> None:
        if self.home_elsewhere and (sends or self._store.config.store):
            raise ApplicationError("NotHome", f"the home of these conversations is {self.home_elsewhere}. Chat there")

    def _check_not_owner(self, peer: str) -> None:
        """Raise InvalidKey, or ApplicationError if ``peer`` is the identity itself."""
        if PublicKey(peer) == self.context.key:
            raise ApplicationError("NoConversation", "an identity has no conversation with itself")


class _TerminalClosed(Exception):
    """A terminal has ended its direction of the session."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
