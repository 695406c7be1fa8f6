"""Data: calls and sessions, between a program or whoever serves and the network."""

from __future__ import annotations

from typing import TypeAlias

from ...limits import SESSION_WINDOW
from .base import (
    UNKNOWN,
    Ack,
    Cancel,
    ErrorReply,
    LongReply,
    Message,
)

__all__ = [
    "ApplicationErrorReply",
    "Call",
    "CallUnknown",
    "DataMessage",
    "DataRequest",
    "DeliverCall",
    "DeliverSession",
    "EndOfStream",
    "OpenSession",
    "RegisterBinding",
    "RegisterIdentity",
    "Reply",
    "ResetStream",
    "SessionData",
    "SessionMessage",
    "SessionOpened",
    "StopSending",
    "UnregisterBinding",
    "UnregisterIdentity",
    "WaitForPeer",
    "WindowUpdate",
]


# ── data: program → network ──────────────────────────────────────────────────────────────────────


class Call(Message, frozen=True, tag=60):
    """A request. The payload is the request's msgpack. Answered by ``Reply``, ``ApplicationErrorReply`` or
    ``ErrorReply``.

    ``identity`` is the caller's identity by name, empty for the only one online. ``peer`` is a petname, an ID52
    or a ticket. ``deadline_ms`` is the time that is left.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    """Which of the protocol's commands; empty for its request handler."""
    call_id: bytes = b""
    """Random, 16 bytes, for a call that may be sent again: whoever serves executes it once. Else empty."""
    attempt: int = 0
    """How often it has been sent before, with the same ``call_id``."""


class Reply(Message, frozen=True, tag=61):
    """The handler's answer is the payload."""


class ApplicationErrorReply(Message, frozen=True, tag=62):
    """The handler said no, on purpose. The payload is its data (msgpack)."""

    kind: str
    message: str = ""


class WaitForPeer(Message, frozen=True, tag=74):
    """Answered by ``Ack`` once the peer can be called: at once, or when it comes online; else by ``ErrorReply``.

    Fields as in ``Call``. Nobody waits any more once the connection has ended.
    """

    identity: str
    peer: str
    deadline_ms: int


# ── data: sessions, both ways ────────────────────────────────────────────────────────────────────


class OpenSession(Message, frozen=True, tag=63):
    """Opens a session. The payload is its initial data (msgpack). Answered by ``SessionOpened``,
    ``ApplicationErrorReply`` or ``ErrorReply``; from ``SessionOpened`` on, both sides send what follows, all under
    this id.

    ``identity`` and ``peer`` as in ``Call``; ``deadline_ms`` is for the answer. ``credit`` is how many bytes of chunks
    the sender of this message takes before it grants more.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int


class SessionOpened(Message, frozen=True, tag=64):
    """The session stands. ``credit`` as in ``OpenSession``, for the other direction."""

    credit: int
    peer: bytes = b""
    """The other side's verified public key, 32 bytes. Whoever serves leaves it out: the network knows."""
    petname: str = ""
    """The other side's name in the address book, or empty."""
    path: str = UNKNOWN
    address: str = ""
    rtt_ms: int | None = None
    """These three as in ``DeliverCall``, likewise."""


class SessionData(Message, frozen=True, tag=65):
    """The next bytes of this direction: the payload, which is within the credit."""


class EndOfStream(Message, frozen=True, tag=66):
    """This direction is complete. Answered by ``Ack`` once that has been passed on."""


class WindowUpdate(Message, frozen=True, tag=67):
    """So many more bytes may be sent in the direction towards whoever grants them."""

    size: int


class ResetStream(Message, frozen=True, tag=68):
    """This direction ends here, incomplete. What the code means is up to the protocol; see ``limits`` for ours."""

    code: int


class StopSending(Message, frozen=True, tag=69):
    """The opposite direction is not read any more. Answered by ``ResetStream`` with this code unless it is complete."""

    code: int


# ── data: whoever serves → network ───────────────────────────────────────────────────────────────


class RegisterIdentity(Message, frozen=True, tag=70):
    """This connection serves the identity: it is online from now, until the connection ends. Answered by ``Ack``.

    ``grant`` proves that the gateway or the supervisor has allowed it.
    """

    identity: str
    grant: bytes


class RegisterBinding(Message, frozen=True, tag=71):
    """This connection takes requests for one protocol instance. Answered by ``Ack``; again replaces the access list.

    ``allow``: as in ``AddProtocol``, but never empty. Several programs may serve the same; each request goes to the
    one that is least busy. A program serves whenever the identity is online, and may say so before.
    """

    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...]
    grant: bytes
    limit: int = 0
    """Requests and sessions in flight that this connection takes; 0 stands for as many as a binding may have."""


class UnregisterBinding(Message, frozen=True, tag=72):
    """Takes back this connection's ``RegisterBinding``; calls in flight are finished. Answered by ``Ack``."""

    identity: str
    protocol: str
    instance: str


class UnregisterIdentity(Message, frozen=True, tag=73):
    """Takes back a ``RegisterIdentity``: the identity is offline. Answered by ``Ack``."""

    identity: str


class CallUnknown(Message, frozen=True, tag=82):
    """Answers a ``DeliverCall`` with an ``attempt``: whoever says it has never had the call."""


# ── data: network → whoever serves ───────────────────────────────────────────────────────────────


class DeliverCall(Message, frozen=True, tag=80):
    """A request for a binding of this connection; the payload is the caller's. Answer it under the same id with
    ``Reply``, ``ApplicationErrorReply`` or ``ErrorReply``; ``Cancel`` under that id says nobody waits any more.
    """

    peer: bytes
    """The caller's verified public key, 32 bytes."""
    petname: str
    """The caller's name in the address book, or empty."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    call_id: bytes = b""
    attempt: int = 0
    """These three as in ``Call``. With an ``attempt`` that is not 0 it is asked for the outcome of a call that this
    connection may have had already; if it has not, it does not execute it, and answers ``CallUnknown``."""
    path: str = UNKNOWN
    """How the caller is connected: ``local`` to the same daemon, ``direct``, ``relayed``, or ``unknown``."""
    address: str = ""
    """Its address, or the relay's; empty where there is none."""
    rtt_ms: int | None = None
    """How long a packet takes there and back, as last known."""


class DeliverSession(Message, frozen=True, tag=81):
    """Somebody opens a session with a binding of this connection; the payload is the initial data. Answer it under the
    same id with ``SessionOpened``, ``ApplicationErrorReply`` or ``ErrorReply``; ``Cancel`` under that id says nobody
    waits any more.
    """

    peer: bytes
    """The other side's verified public key, 32 bytes."""
    petname: str
    """The other side's name in the address book, or empty."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int
    """As in ``OpenSession``."""
    path: str = UNKNOWN
    address: str = ""
    rtt_ms: int | None = None
    """These three as in ``DeliverCall``."""
    window: int = SESSION_WINDOW
    """Bytes of chunks that whoever serves should take before it grants more: fewer of strangers with many sessions."""


SessionMessage: TypeAlias = (
    SessionOpened
    | SessionData
    | EndOfStream
    | Ack
    | WindowUpdate
    | ResetStream
    | StopSending
    | ErrorReply
    | ApplicationErrorReply
    | Cancel
)
"""What either side may say under the id of a session that has been asked for."""


DataRequest: TypeAlias = (
    Call
    | Cancel
    | Reply
    | CallUnknown
    | ApplicationErrorReply
    | ErrorReply
    | RegisterIdentity
    | RegisterBinding
    | UnregisterBinding
    | UnregisterIdentity
    | WaitForPeer
    | OpenSession
    | SessionOpened
    | SessionData
    | EndOfStream
    | Ack
    | WindowUpdate
    | ResetStream
    | StopSending
)
"""What a program or an identity process may say to the network."""


DataMessage: TypeAlias = (
    Reply
    | ApplicationErrorReply
    | ErrorReply
    | Ack
    | LongReply
    | DeliverCall
    | Cancel
    | DeliverSession
    | SessionOpened
    | SessionData
    | EndOfStream
    | WindowUpdate
    | ResetStream
    | StopSending
)
"""What the network says to them."""
