"""``Chat`` of one's own identity: ``ChatClient`` and ``Conversation`` are what programs use, and the command line."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import (
    ConnectionLost,
    IdentityAmbiguous,
    IdentityNotFound,
    NoIdentityOnline,
    P2PError,
    PeerUnknown,
    is_transient,
)
from fastn_p2p_client.ipc.messages import (
    IdentityInfo,
    ListIdentities,
    ListPeers,
)
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey
from fastn_p2p_client.limits import DEFAULT_INSTANCE
from fastn_p2p_client.session.session import Session

from ..retry import Backoff
from ..session import framing
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

__all__ = ["PROTOCOL", "ChatClient", "Conversation"]

T = TypeVar("T")

PROTOCOL: Final = "Chat"

_PATIENCE: Final = 30.0
"""Seconds without any success in which what comes back by itself is tried again."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 2.0
_MEMORY: Final = 500
"""Messages of which is known what has been told."""

_event: Final = msgspec.msgpack.Decoder(Event)


class ChatClient:
    """The conversations of one identity of this daemon.

    ::

        async with Client() as client:
            bob = await ChatClient(client, "alice").with_peer("bob")
            await bob.say("hello")
            async for event in bob.follow():
                ...

    Every method raises ``ApplicationError`` for what the protocol refuses, and ``P2PError`` for everything else.

    Args:
        identity: its name; None for the only one online.
        instance: which of its ``Chat`` bindings. The peer's is the one of the same name.
    """

    def __init__(self, client: Client, identity: str | None = None, instance: str = DEFAULT_INSTANCE) -> None:
        self._client = client
        self._wanted = identity
        self._instance = instance
        self._identity: IdentityInfo | None = None
        self._met = False
        """It has answered once: what looks like a wrong name before is one, and is about to come back afterwards."""

    async def with_peer(self, peer: str | PublicKey, conversation: str = "default") -> Conversation:
        """The conversation with a peer: a ``PublicKey``, an ID52, a petname, or else an identity of this daemon.

        Raises:
            PeerUnknown, InvalidKey: it is none of these.
        """
        reply = await self._client.control(ListPeers())
        text = str(peer)
        own = await self._client.control(ListIdentities())
        names = [(each.name, each.id52) for each in reply.peers] + [(each.name, each.id52) for each in own.identities]
        for name, id52 in names:
            if text in (name, id52):
                return Conversation(self, PublicKey(id52), name, conversation)
        if len(text) < ID52_LENGTH * 3 // 4:  # a name, not a mistyped ID52
            raise PeerUnknown(peer=text)
        key = PublicKey(text)
        return Conversation(self, key, key.id52, conversation)

    async def conversations(self) -> list[ConversationSummary]:
        """All that there are, the latest first."""
        return (await self.ask(ListConversations(), ConversationList)).conversations

    async def ask(self, request: SendMessage | GetHistory | ListConversations, returns: type[T]) -> T:
        """One call, repeated while the daemon is coming back."""

        async def call() -> T:
            own = await self._own()
            return await self._client.call(
                own.name, own.id52, PROTOCOL, self._instance, request, returns=returns, timeout=_PATIENCE
            )

        return await self.retry(call)

    async def retry(self, action: Callable[[], Awaitable[T]]) -> T:
        """Does it again while the daemon, or a process of it, is coming back.

        Raises what ``action`` does: when that takes too long, and when it has never been there.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                result = await action()
            except P2PError as error:
                if loop.time() > deadline or not is_transient(error, self._met):
                    raise
            else:
                self._met = True
                return result
            await asyncio.sleep(pauses.pause())

    async def join(self, order: FollowConversation) -> Session:
        """One session. Raises like ``Client.connect``."""
        own = await self._own()
        return await self._client.connect(own.name, own.id52, PROTOCOL, self._instance, order)

    async def _own(self) -> IdentityInfo:
        """
        Raises:
            IdentityNotFound, IdentityOffline, IdentityAmbiguous, NoIdentityOnline: it is not clear whose.
        """
        if self._identity is None:
            reply = await self._client.control(ListIdentities())
            self._identity = _chosen(reply.identities, self._wanted)
        return self._identity


class Conversation:
    """With one peer.

    Attributes:
        peer: whose key it is.
        name: what the peer is called here: its petname, else its ID52.
    """

    def __init__(self, chat: ChatClient, peer: PublicKey, name: str, conversation: str) -> None:
        self._chat = chat
        self.peer = peer
        self.name = name
        self._conversation = conversation
        self._session: Session | None = None
        self._shown = 0

    async def send(self, text: str, *, id: str = "") -> ChatMessage:
        """Keep a message, which is delivered whenever the peer comes. It is on disk when this returns.

        Args:
            text: 1 to ``MAX_TEXT`` characters.
            id: 32 hex digits; the same again is the same message.
        """
        return await self._chat.ask(
            SendMessage(self.peer.id52, id or secrets.token_hex(16), text, self._conversation), ChatMessage
        )

    async def history(self, before: int | None = None, limit: int = 100) -> list[ChatMessage]:
        """The last messages, or the last ones before the one with this ``seq``; oldest first."""
        request = GetHistory(self.peer.id52, self._conversation, before, limit)
        return (await self._chat.ask(request, MessagePage)).lines

    async def mark_read(self, line: ChatMessage) -> None:
        """The message has been shown to somebody, and so have those before it: the peer is told.

        Only while ``events`` runs; else it has no effect.
        """
        if not line.mine and line.seq > self._shown:
            self._shown = line.seq
            if self._session is not None:
                try:
                    await framing.send_message(self._session, MarkRead(line.seq))
                except P2PError:
                    return  # ``events`` says it again when it has joined again

    async def events(self, last: int = 20) -> AsyncGenerator[Event, None]:
        """The last messages, ``HistoryEnd``, then what happens, without an end: it joins again whenever a process of
        the daemon dies, and nothing is told twice. While it runs, the peer sees that somebody is here."""
        told = _EventDeduplicator()
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            session = await self._chat.retry(lambda: self._join(told.more_than(last)))
            try:
                async for event in self._events(session):
                    pauses.reset()
                    for news in told.news(event):
                        yield news
            except P2PError as error:
                if not is_transient(error, connected_before=False):
                    raise
                await asyncio.sleep(pauses.pause())
            finally:
                self._session = None
                session.reset()

    async def _join(self, last: int) -> Session:
        return await self._chat.join(FollowConversation(self.peer.id52, self._conversation, last))

    async def _events(self, session: Session) -> AsyncIterator[Event]:
        self._session = session
        if self._shown:
            await framing.send_message(session, MarkRead(self._shown))
        while (event := await framing.receive_message(session, _event)) is not None:
            yield event
        raise ConnectionLost(what="the process that keeps the conversation")


class _EventDeduplicator:
    """What ``events`` has told already: a conversation that is joined again begins with what is known."""

    def __init__(self) -> None:
        self._marks: dict[str, MessageState] = {}
        self._newest = 0
        self._presence: PresenceState | None = None
        self._trouble = ""

    def more_than(self, last: int) -> int:
        """How many messages to ask for, so that none is missed."""
        return last if self._presence is None else _MEMORY

    def news(self, event: Event) -> list[Event]:
        """The event, or what of it is new."""
        if isinstance(event, ChatMessage):
            known = self._marks.get(event.id) if event.seq <= self._newest else None
            if event.seq <= self._newest:
                if known is None or known == event.mark:
                    return []
                event = StateChanged(event.id, event.mark)
        if isinstance(event, ChatMessage | StateChanged):
            if isinstance(event, ChatMessage):
                self._newest = event.seq
            self._marks.pop(event.id, None)
            self._marks[event.id] = event.mark
            if len(self._marks) > 2 * _MEMORY:
                del self._marks[next(iter(self._marks))]
            return [event]
        if isinstance(event, DeliveryProblem):
            changed, self._trouble = event.words != self._trouble, event.words
            return [event] if changed else []
        return self._of_presence(event)

    def _of_presence(self, event: HistoryEnd | Presence) -> list[Event]:
        before, self._presence = self._presence, event.presence
        news: list[Event] = []
        if isinstance(event, HistoryEnd):
            if before is None:
                return [event]
            news = self.news(DeliveryProblem(""))  # if there still is any, it follows
        return news if before == event.presence else [*news, Presence(event.presence)]


def _chosen(known: list[IdentityInfo], name: str | None) -> IdentityInfo:
    if name is not None:
        for each in known:
            if each.name == name:
                return each
        raise IdentityNotFound(identity=name)
    online = [each for each in known if each.online]
    if not online:
        raise NoIdentityOnline()
    if len(online) > 1:
        raise IdentityAmbiguous(online=[each.name for each in online])
    return online[0]
