"""Messages of the protocol ``Chat``.

``OwnerRequest`` and ``FollowConversation`` are for the owner: a program or terminal calls the identity's own binding.
``PeerRequest`` and ``OpenPresence`` are sent from one peer's binding to the other's. ``Event`` is sent to the programs
that follow a conversation.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

MAX_TEXT: Final = 16_384
"""Characters in a message."""
MAX_BATCH: Final = 100
"""Messages or ids in one request between peers."""
MAX_PAGE: Final = 500
"""Messages in one reply to ``GetHistory``, or at the begin of a ``FollowConversation``."""

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")]
Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=52, max_length=52)]
Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))]

MessageState: TypeAlias = Literal["kept", "delivered", "seen"]
"""State of a message: on the sender's disk; on the receiver's disk; read by the receiver."""
PresenceState: TypeAlias = Literal["here", "away"]
"""Presence of a peer: a program of it follows the conversation at the moment, or none does."""


class ChatMessage(msgspec.Struct, frozen=True, tag="message"):
    """Message of a conversation, as its owner's binding stores it."""

    seq: int
    """Position in the binding's order: later messages have a greater one."""
    id: Id
    """Id that its author gave it, the same at both peers."""
    mine: bool
    """True if the owner has written it, False if the peer has."""
    text: str
    """The text, as its author has written it."""
    at: int
    """Milliseconds since 1970, UTC, at which it was written, by its author's clock; never later than it was stored."""
    mark: MessageState
    """State of the message."""


# ── from the owner ────────── ──────────────────────────────────────────────────────────────────


class SendMessage(msgspec.Struct, frozen=True, tag="say"):
    """Store a message and deliver it once the peer is online. Answered by its ``ChatMessage`` once it is on disk.

    The same id again is the same message, and gets the same answer.
    """

    peer: Key
    id: Id
    text: Text
    conversation: Name = "default"


class GetHistory(msgspec.Struct, frozen=True, tag="recall"):
    """Get the last messages, or the last ones before ``before``, oldest first. Answered by ``MessagePage``."""

    peer: Key
    conversation: Name = "default"
    before: Seq | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100


class ListConversations(msgspec.Struct, frozen=True, tag="conversations"):
    """List all conversations. Answered by ``ConversationList``."""


class FollowConversation(msgspec.Struct, frozen=True, tag="join"):
    """Initial data of a session: it sends the last messages, ``HistoryEnd``, then an ``Event`` for every change."""

    peer: Key
    conversation: Name = "default"
    last: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)] = 20


class MarkRead(msgspec.Struct, frozen=True, tag="shown"):
    """Message inside the session: the owner has read the peer's messages up to this one."""

    seq: Seq


# ── to programs that follow a conversation──────────────────────────────────────────────────────────


class HistoryEnd(msgspec.Struct, frozen=True, tag="joined"):
    """End of the history: later events happen from now on."""

    presence: PresenceState
    """State of the peer at this moment."""


class StateChanged(msgspec.Struct, frozen=True, tag="mark"):
    """A message has got another state."""

    id: Id
    """Id of the message, 32 hex digits."""
    mark: MessageState
    """State of the message from now on."""


class Presence(msgspec.Struct, frozen=True, tag="presence"):
    """The peer has begun or ceased to follow the conversation."""

    presence: PresenceState
    """State of the peer from now on."""


class DeliveryProblem(msgspec.Struct, frozen=True, tag="trouble"):
    """Messages wait although the peer is reachable, or do so no longer."""

    words: str
    """Reason, for people; empty once no message waits any more."""


Event: TypeAlias = ChatMessage | HistoryEnd | StateChanged | Presence | DeliveryProblem


class MessagePage(msgspec.Struct, frozen=True, tag="lines"):
    """Page of the history."""

    lines: list[ChatMessage]


class ConversationSummary(msgspec.Struct, frozen=True):
    """Conversation with one peer, without its messages."""

    peer: str
    """ID52 of the peer."""
    conversation: str
    """Name of the conversation."""
    messages: int
    """Number of messages."""
    unseen: int
    """Number of messages of the peer that the owner has not read."""
    waiting: int
    """Number of the owner's messages that are not delivered."""
    last_at: int
    """Milliseconds since 1970, UTC, of the last message."""


class ConversationList(msgspec.Struct, frozen=True, tag="conversation-list"):
    """Conversations of a binding."""

    conversations: list[ConversationSummary]


# ── from the peer's binding ──────────────────────────────────────────────────────────────────────


class OutgoingMessage(msgspec.Struct, frozen=True):
    """Message in a delivery."""

    id: Id
    text: Text
    at: Milliseconds


class DeliverMessages(msgspec.Struct, frozen=True, tag="deliver"):
    """Deliver messages in the order in which they were written. Answered by ``Delivered`` once they are on disk.

    A message that was delivered before is stored once.
    """

    conversation: Name
    messages: Annotated[list[OutgoingMessage], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class ReadReceipt(msgspec.Struct, frozen=True, tag="viewed"):
    """Report that the receiver's messages with these ids were read here. Answered by ``Delivered``."""

    conversation: Name
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Delivered(msgspec.Struct, frozen=True, tag="done"):
    """The messages, or the receipts, are on disk."""


class OpenPresence(msgspec.Struct, frozen=True, tag="attend"):
    """Initial data of a session without messages: while it is open, a program here follows the conversation."""

    conversation: Name


OwnerRequest: TypeAlias = SendMessage | GetHistory | ListConversations
PeerRequest: TypeAlias = DeliverMessages | ReadReceipt
Request: TypeAlias = SendMessage | GetHistory | ListConversations | DeliverMessages | ReadReceipt
