"""What is said about conversations.

``OwnerRequest`` and ``FollowConversation`` are for the identity itself: a program or a terminal at its own binding.
``PeerRequest`` and ``OpenPresence`` are what bindings say to each other. ``Event`` is what a binding tells those who
have joined.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "MAX_BATCH",
    "MAX_PAGE",
    "MAX_TEXT",
    "ChatMessage",
    "ConversationList",
    "ConversationSummary",
    "DeliverMessages",
    "Delivered",
    "DeliveryProblem",
    "Event",
    "FollowConversation",
    "GetHistory",
    "HistoryEnd",
    "ListConversations",
    "MarkRead",
    "MessagePage",
    "MessageState",
    "OpenPresence",
    "OutgoingMessage",
    "OwnerRequest",
    "PeerRequest",
    "Presence",
    "PresenceState",
    "ReadReceipt",
    "Request",
    "SendMessage",
    "StateChanged",
]

MAX_TEXT: Final = 16_384
"""Characters in a message."""
MAX_BATCH: Final = 100
"""Messages, or ids, in one request between bindings."""
MAX_PAGE: Final = 500
"""Messages in one answer to ``GetHistory``, and before what happens in a ``FollowConversation``."""

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")]
Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=52, max_length=52)]
Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))]

MessageState: TypeAlias = Literal["kept", "delivered", "seen"]
"""How far a message has come: on this side's disk; on the other side's; shown by an open terminal there."""
PresenceState: TypeAlias = Literal["here", "away"]
"""Whether a terminal of the peer shows the conversation at the moment."""


class ChatMessage(msgspec.Struct, frozen=True, tag="message"):
    """One message of a conversation, as its owner's binding keeps it."""

    seq: int
    """Its place: later messages of the binding have a greater one."""
    id: Id
    """Chosen by whoever wrote it; the same at both sides."""
    mine: bool
    text: str
    at: int
    """When it was written: milliseconds since 1970, UTC, by the writer's clock, and never later than it was kept."""
    mark: MessageState


# ── an owner to the own binding ──────────────────────────────────────────────────────────────────


class SendMessage(msgspec.Struct, frozen=True, tag="say"):
    """Keep a message and deliver it, whenever the peer comes. Answered by its ``ChatMessage`` once it is on disk.

    The same id again is the same message, and answered the same.
    """

    peer: Key
    id: Id
    text: Text
    conversation: Name = "default"


class GetHistory(msgspec.Struct, frozen=True, tag="recall"):
    """Answered by ``MessagePage``: the last ones, or the last ones before ``before``, oldest first."""

    peer: Key
    conversation: Name = "default"
    before: Seq | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100


class ListConversations(msgspec.Struct, frozen=True, tag="conversations"):
    """Answered by ``ConversationList``."""


class FollowConversation(msgspec.Struct, frozen=True, tag="join"):
    """Opens a session: ``ChatMessage`` for each of the last messages, ``HistoryEnd``, then an ``Event`` for all that
    happens."""

    peer: Key
    conversation: Name = "default"
    last: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)] = 20


class MarkRead(msgspec.Struct, frozen=True, tag="shown"):
    """Inside the session: the peer's messages up to this one have been shown to somebody."""

    seq: Seq


# ── a binding to those who have joined ───────────────────────────────────────────────────────────


class HistoryEnd(msgspec.Struct, frozen=True, tag="joined"):
    """What came before this is history."""

    presence: PresenceState


class StateChanged(msgspec.Struct, frozen=True, tag="mark"):
    """A message has come further."""

    id: Id
    mark: MessageState


class Presence(msgspec.Struct, frozen=True, tag="presence"):
    """The peer has come or gone."""

    presence: PresenceState


class DeliveryProblem(msgspec.Struct, frozen=True, tag="trouble"):
    """Why messages wait although the peer can be reached; empty when they do not any more."""

    words: str


Event: TypeAlias = ChatMessage | HistoryEnd | StateChanged | Presence | DeliveryProblem


class MessagePage(msgspec.Struct, frozen=True, tag="lines"):
    lines: list[ChatMessage]


class ConversationSummary(msgspec.Struct, frozen=True):
    """One conversation."""

    peer: str
    """ID52."""
    conversation: str
    messages: int
    unseen: int
    """The peer's that nobody has been shown."""
    waiting: int
    """One's own that are not delivered."""
    last_at: int


class ConversationList(msgspec.Struct, frozen=True, tag="conversation-list"):
    conversations: list[ConversationSummary]


# ── a binding to the peer's ──────────────────────────────────────────────────────────────────────


class OutgoingMessage(msgspec.Struct, frozen=True):
    """A message on its way."""

    id: Id
    text: Text
    at: Milliseconds


class DeliverMessages(msgspec.Struct, frozen=True, tag="deliver"):
    """Messages in the order in which they were written. Answered by ``Delivered`` once they are on disk; those that
    came before are not taken a second time."""

    conversation: Name
    messages: Annotated[list[OutgoingMessage], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class ReadReceipt(msgspec.Struct, frozen=True, tag="viewed"):
    """The receiver's messages with these ids have been shown here. Answered by ``Delivered``."""

    conversation: Name
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Delivered(msgspec.Struct, frozen=True, tag="done"):
    """It is done."""


class OpenPresence(msgspec.Struct, frozen=True, tag="attend"):
    """Opens a session in which nothing is said: while it stands, a terminal here shows the conversation."""

    conversation: Name


OwnerRequest: TypeAlias = SendMessage | GetHistory | ListConversations
PeerRequest: TypeAlias = DeliverMessages | ReadReceipt
Request: TypeAlias = SendMessage | GetHistory | ListConversations | DeliverMessages | ReadReceipt
