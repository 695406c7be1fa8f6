"""``ChatClient`` and ``Conversation``: conversations of an identity of this machine, for programs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from ..client import Client
from ..control_client import list_all_identities, list_all_peers
from ..errors import ConnectionLost, P2PError, PeerUnknown, is_transient
from ..keys import ID52_LENGTH, PublicKey
from ..limits import DEFAULT_INSTANCE
from ..peer_text import read_peer_text
from ..retry import Backoff
from ..session import framing
from ..session.session import Session
from .messages import (
    ChatMessage,
    ConversationList,
    ConversationSummary,
    DeliveryProblem,
    Event,
    FollowConversation,
    GetHistory,
    HistoryEnd,
    ListConversations,
    MarkRead,
    MessagePage,
    MessageState,
    Presence,
    PresenceState,
    SendMessage,
    StateChanged,
)

T = TypeVar("T")

PROTOCOL: Final = "Chat"
"""Name of the protocol."""

_TIMEOUT: Final = 30.0
"""Seconds without success after which transient errors are not retried any more."""
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 2.0
"""Seconds between two attempts, at first and at most."""
_MAX_KNOWN: Final = 500
"""Messages whose last reported state is known."""

_event: Final = msgspec.msgpack.Decoder(Event)


class ChatClient:
    """Conversations of one identity of this daemon. Use it inside one event loop.

    ::

        async with Client() as client:
            bob = await ChatClient(client, "alice").with_peer("bob")
            await bob.send("hello")
            async for event in bob.events():
                ...

    Every method raises ``ApplicationError`` if the protocol rejects the request. It raises ``IdentityNotFound``,
    ``NoIdentityOnline`` or ``IdentityAmbiguous`` if it is not clear whose conversations are meant, and another
    ``P2PError`` in all other cases. Transient errors are retried for up to 30 seconds.
    """

    def __init__(self, client: Client, identity: str | None = None, instance: str = DEFAULT_INSTANCE) -> None:
        """
        Args:
            client: the program's connection to the daemon.
            identity: the name of the identity; None for the only one online.
            instance: the instance of ``Chat``, here and at the peer.
        """
        self._client = client
        self._wanted = identity
        self._instance = instance
        self._owner: tuple[str, PublicKey] | None = None
        self._connected_before = False
        """True once the protocol has answered. An unknown name is an error before that, and a restart afterwards."""

    async def with_peer(self, peer: str | PublicKey, conversation: str = "default") -> Conversation:
        """Return a conversation with a peer.

        Args:
            peer: a ``PublicKey``, an ID52, a petname, or the name of an identity of this daemon.
            conversation: the name of the conversation with this peer.

        Raises:
            PeerUnknown: there is no peer of this name.
            InvalidKey: it is no valid ID52.
            P2PError: the daemon does not answer.
        """
        named = read_peer_text(str(peer))
        named.check_target("Chat", "")
        text = named.name
        names = [(each.name, each.id52) for each in await list_all_peers(self._client)]
        names += [(each.name, each.id52) for each in await list_all_identities(self._client)]
        for name, id52 in names:
            if text in (name, id52):
                return Conversation(self, PublicKey(id52), name, conversation)
        if len(text) < ID52_LENGTH * 3 // 4:  # a name, not a mistyped ID52
            raise PeerUnknown(peer=text)
        key = PublicKey(text)
        return Conversation(self, key, key.id52, conversation)

    async def conversations(self) -> list[ConversationSummary]:
        """Return all conversations, the one with the latest message first."""
        return (await self.request(ListConversations(), ConversationList)).conversations

    async def request(self, request: SendMessage | GetHistory | ListConversations, returns: type[T]) -> T:
        """Call the identity's own ``Chat``, with retries.

        Args:
            request: the request.
            returns: the type of the reply.
        """

        async def call() -> T:
            name, key = await self._resolve_identity()
            return await self._client.call(
                name, key, PROTOCOL, self._instance, request, returns=returns, timeout=_TIMEOUT
            )

        return await self.retry(call)

    async def retry(self, action: Callable[[], Awaitable[T]]) -> T:
        """Run an action and return its result. Retry it after transient errors.

        Args:
            action: the action.

        Raises:
            P2PError: the last error, after 30 seconds or if it is not transient.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _TIMEOUT
        backoff = Backoff(_FIRST_BACKOFF, _LONGEST_BACKOFF)
        while True:
            try:
                result = await action()
            except P2PError as error:
                if loop.time() > deadline or not is_transient(error, self._connected_before):
                    raise
            else:
                self._connected_before = True
                return result
            await asyncio.sleep(backoff.next_delay())

    async def connect(self, order: FollowConversation) -> Session:
        """Open a session with the identity's own ``Chat``.

        Args:
            order: the initial data: the conversation to follow.

        Raises:
            ApplicationError: the protocol rejects it.
            P2PError: another error.
        """
        name, key = await self._resolve_identity()
        return await self._client.connect(name, key, PROTOCOL, self._instance, order)

    async def _resolve_identity(self) -> tuple[str, PublicKey]:
        if self._owner is None:
            self._owner = await self._client.resolve_identity(self._wanted)
        return self._owner


class Conversation:
    """Conversation with one peer. ``ChatClient.with_peer`` makes it.

    Attributes:
        peer: the peer's public key.
        name: the peer's petname, else its ID52.
    """

    def __init__(self, chat: ChatClient, peer: PublicKey, name: str, conversation: str) -> None:
        """
        Args:
            chat: the client of the identity.
            peer: the peer's public key.
            name: the peer's name for display.
            conversation: the name of the conversation.
        """
        self._chat = chat
        self.peer = peer
        self.name = name
        self._conversation = conversation
        self._session: Session | None = None
        self._read_up_to = 0
        """Highest ``seq`` of a message of the peer that was read here."""

    async def send(self, text: str, *, id: str = "") -> ChatMessage:
        """Send a message. It is on this machine's disk when this returns, and delivered once the peer is online.

        Args:
            text: 1 to ``MAX_TEXT`` (16,384) characters.
            id: 32 hex digits. The same id again is the same message. By default a random one.

        Returns:
            The message as it is stored.

        Raises:
            ApplicationError: the protocol rejects the message.
            P2PError: another error.
        """
        return await self._chat.request(
            SendMessage(self.peer.id52, id or secrets.token_hex(16), text, self._conversation), ChatMessage
        )

    async def history(self, before: int | None = None, limit: int = 100) -> list[ChatMessage]:
        """Return the last messages, oldest first.

        Args:
            before: return messages with a lower ``seq`` only.
            limit: messages at most, 1 to 500.

        Raises:
            P2PError: the daemon does not answer.
        """
        request = GetHistory(self.peer.id52, self._conversation, before, limit)
        return (await self._chat.request(request, MessagePage)).lines

    async def mark_read(self, line: ChatMessage) -> None:
        """Mark a message of the peer and all earlier ones as read. The peer is told so.

        It has an effect while ``events`` runs only.

        Args:
            line: the message.
        """
        if not line.mine and line.seq > self._read_up_to:
            self._read_up_to = line.seq
            if self._session is not None:
                try:
                    await framing.send_message(self._session, MarkRead(line.seq))
                except P2PError:
                    return  # ``events`` sends it again after it has reconnected

    async def events(self, last: int = 20) -> AsyncGenerator[Event, None]:
        """Yield the last messages, ``HistoryEnd``, then every event as it happens. It never ends by itself.

        It reconnects when a process of the daemon restarts, and yields no event twice. While it runs, the peer sees
        the identity as present.

        Args:
            last: messages to begin with, 0 to 500.

        Raises:
            P2PError: an error that is not transient.
        """
        deduplicator = _EventDeduplicator()
        backoff = Backoff(_FIRST_BACKOFF, _LONGEST_BACKOFF)
        while True:
            session = await self._chat.retry(lambda: self._connect(deduplicator.more_than(last)))
            try:
                async for event in self._events(session):
                    backoff.reset()
                    for update in deduplicator.updates(event):
                        yield update
            except P2PError as error:
                if not is_transient(error, connected_before=False):
                    raise
                await asyncio.sleep(backoff.next_delay())
            finally:
                self._session = None
                session.reset()

    async def _connect(self, last: int) -> Session:
        return await self._chat.connect(FollowConversation(self.peer.id52, self._conversation, last))

    async def _events(self, session: Session) -> AsyncIterator[Event]:
        self._session = session
        if self._read_up_to:
            await framing.send_message(session, MarkRead(self._read_up_to))
        while (event := await framing.receive_message(session, _event)) is not None:
            yield event
        raise ConnectionLost(what="the process that keeps the conversation")


class _EventDeduplicator:
    """Drops events that ``events`` has yielded before: each new session begins with known messages."""

    def __init__(self) -> None:
        self._states: dict[str, MessageState] = {}
        """Last yielded state by id, for the latest messages."""
        self._newest_seq = 0
        self._presence: PresenceState | None = None
        self._problem = ""

    def more_than(self, last: int) -> int:
        """Return the number of messages to ask for: ``last`` at first, then enough that none is missed."""
        return last if self._presence is None else _MAX_KNOWN

    def updates(self, event: Event) -> list[Event]:
        """Return the part of an event that is new."""
        if isinstance(event, ChatMessage):
            known = self._states.get(event.id) if event.seq <= self._newest_seq else None
            if event.seq <= self._newest_seq:
                if known is None or known == event.mark:
                    return []
                event = StateChanged(event.id, event.mark)
        if isinstance(event, ChatMessage | StateChanged):
            if isinstance(event, ChatMessage):
                self._newest_seq = event.seq
            self._states.pop(event.id, None)
            self._states[event.id] = event.mark
            if len(self._states) > 2 * _MAX_KNOWN:
                del self._states[next(iter(self._states))]
            return [event]
        if isinstance(event, DeliveryProblem):
            changed, self._problem = event.words != self._problem, event.words
            return [event] if changed else []
        return self._new_presence(event)

    def _new_presence(self, event: HistoryEnd | Presence) -> list[Event]:
        before, self._presence = self._presence, event.presence
        updates: list[Event] = []
        if isinstance(event, HistoryEnd):
            if before is None:
                return [event]
            updates = self.updates(DeliveryProblem(""))  # a problem that persists is sent again
        return updates if before == event.presence else [*updates, Presence(event.presence)]
