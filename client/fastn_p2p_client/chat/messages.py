"""What is said about conversations.

``OwnRequest`` and ``Join`` are for the identity itself: a program or a terminal at its own binding. ``PeerRequest`` and
``Attend`` are what bindings say to each other. ``Event`` is what a binding tells those who have joined.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "MAX_BATCH",
    "MAX_PAGE",
    "MAX_TEXT",
    "Attend",
    "Attention",
    "Conversations",
    "Deliver",
    "Done",
    "Event",
    "Join",
    "Joined",
    "Known",
    "KnownList",
    "Line",
    "Lines",
    "Mark",
    "Marked",
    "OwnRequest",
    "PeerRequest",
    "Presence",
    "Recall",
    "Request",
    "Say",
    "Sent",
    "Shown",
    "Trouble",
    "Viewed",
]

MAX_TEXT: Final = 16_384
"""Characters in a message."""
MAX_BATCH: Final = 100
"""Messages, or ids, in one request between bindings."""
MAX_PAGE: Final = 500
"""Messages in one answer to ``Recall``, and before what happens in a ``Join``."""

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")]
Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=52, max_length=52)]
Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))]

Mark: TypeAlias = Literal["kept", "delivered", "seen"]
"""How far a message has come: on this side's disk; on the other side's; shown by an open terminal there."""
Attention: TypeAlias = Literal["here", "away"]
"""Whether a terminal of the peer shows the conversation at the moment."""


class Line(msgspec.Struct, frozen=True, tag="message"):
    """One message of a conversation, as its owner's binding keeps it."""

    seq: int
    """Its place: later messages of the binding have a greater one."""
    id: Id
    """Chosen by whoever wrote it; the same at both sides."""
    mine: bool
    text: str
    at: int
    """When it was written: milliseconds since 1970, UTC, by the writer's clock, and never later than it was kept."""
    mark: Mark


# ── an owner to the own binding ──────────────────────────────────────────────────────────────────


class Say(msgspec.Struct, frozen=True, tag="say"):
    """Keep a message and deliver it, whenever the peer comes. Answered by its ``Line`` once it is on disk.

    The same id again is the same message, and answered the same.
    """

    peer: Key
    id: Id
    text: Text
    conversation: Name = "default"


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Answered by ``Lines``: the last ones, or the last ones before ``before``, oldest first."""

    peer: Key
    conversation: Name = "default"
    before: Seq | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100


class Conversations(msgspec.Struct, frozen=True, tag="conversations"):
    """Answered by ``KnownList``."""


class Join(msgspec.Struct, frozen=True, tag="join"):
    """Opens a session: ``Line`` for each of the last messages, ``Joined``, then an ``Event`` for all that happens."""

    peer: Key
    conversation: Name = "default"
    last: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)] = 20


class Shown(msgspec.Struct, frozen=True, tag="shown"):
    """Inside the session: the peer's messages up to this one have been shown to somebody."""

    seq: Seq


# ── a binding to those who have joined ───────────────────────────────────────────────────────────


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """What came before this is history."""

    presence: Attention


class Marked(msgspec.Struct, frozen=True, tag="mark"):
    """A message has come further."""

    id: Id
    mark: Mark


class Presence(msgspec.Struct, frozen=True, tag="presence"):
    """The peer has come or gone."""

    presence: Attention


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """Why messages wait although the peer can be reached; empty when they do not any more."""

    words: str


Event: TypeAlias = Line | Joined | Marked | Presence | Trouble


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    lines: list[Line]


class Known(msgspec.Struct, frozen=True):
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


class KnownList(msgspec.Struct, frozen=True, tag="conversation-list"):
    conversations: list[Known]


# ── a binding to the peer's ──────────────────────────────────────────────────────────────────────


class Sent(msgspec.Struct, frozen=True):
    """A message on its way."""

    id: Id
    text: Text
    at: Milliseconds


class Deliver(msgspec.Struct, frozen=True, tag="deliver"):
    """Messages in the order in which they were written. Answered by ``Done`` once they are on disk; those that came
    before are not taken a second time."""

    conversation: Name
    messages: Annotated[list[Sent], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Viewed(msgspec.Struct, frozen=True, tag="viewed"):
    """The receiver's messages with these ids have been shown here. Answered by ``Done``."""

    conversation: Name
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is done."""


class Attend(msgspec.Struct, frozen=True, tag="attend"):
    """Opens a session in which nothing is said: while it stands, a terminal here shows the conversation."""

    conversation: Name


OwnRequest: TypeAlias = Say | Recall | Conversations
PeerRequest: TypeAlias = Deliver | Viewed
Request: TypeAlias = Say | Recall | Conversations | Deliver | Viewed
