"""Data messages: calls, sessions and registrations, between a program or identity process and the network process."""

from __future__ import annotations

from typing import TypeAlias

from ...limits import SESSION_WINDOW
from .base import UNKNOWN, Ack, Cancel, ErrorReply, LongReply, Message

__all__ = [
    "ApplicationErrorReply",
    "Call",
    "CallUnknown",
    "DataMessage",
    "DataRequest",
    "DeliverCall",
    "DeliverSession",
    "EndOfStream",
    "GetMemory",
    "HomeChanged",
    "MemoryReady",
    "OpenSession",
    "RedeemRoute",
    "RegisterBinding",
    "RegisterIdentity",
    "Reply",
    "ReportWaiting",
    "RequestSleep",
    "ResetStream",
    "RouteSession",
    "SessionData",
    "SessionMessage",
    "SessionOpened",
    "SessionRoute",
    "ShareMemory",
    "SharedData",
    "SleepReply",
    "StopSending",
    "UnregisterBinding",
    "UnregisterIdentity",
    "WaitForPeer",
    "WindowUpdate",
]


# ── program → network process ────────────────────────────────────────────────────────────────────


class Call(Message, frozen=True, tag=60):
    """Call a protocol of a peer. The payload is the request as msgpack.

    Answered by ``Reply``, ``ApplicationErrorReply`` or ``ErrorReply``. ``identity`` is the name of the calling
    identity, empty for the only one online. ``peer`` is a petname, an ID52 or a ticket. ``deadline_ms`` is the time
    that is left.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    """Command of the protocol; empty for its request handler."""
    call_id: bytes = b""
    """Idempotency key, 16 random bytes, of a call that may be sent again: the callee executes it once. Else empty."""
    attempt: int = 0
    """Number of times that it was sent before, with the same ``call_id``, and may have been executed."""
    request_id: str = ""
    """Name of the call in logs and errors, at most ``MAX_REQUEST_ID`` characters. If it is empty, the name is
    ``call_id`` in hexadecimal, or else one that the network process makes. A ``*`` at its end stands for the
    correlation id in hexadecimal without the leading zeros; that id has at most 8 bytes then."""
    traceparent: str = ""
    """Span of the caller that this belongs to (W3C Trace Context); empty for none."""
    sent_ms: int = 0
    """Time of the first attempt that ``attempt`` counts, in milliseconds of ``CLOCK_BOOTTIME``; 0 if it is not known. A
    daemon that was started later may not know that attempt."""


class Reply(Message, frozen=True, tag=61):
    """The reply of a handler, as the payload."""


class ApplicationErrorReply(Message, frozen=True, tag=62):
    """An error that the handler raised on purpose. The payload is its data as msgpack."""

    kind: str
    message: str = ""


class WaitForPeer(Message, frozen=True, tag=74):
    """Wait until the peer can be called. Answered by ``Ack`` when it is online, which can be at once.

    The fields are those of ``Call``. The end of the connection cancels the wait.
    """

    identity: str
    peer: str
    deadline_ms: int


# ── sessions, in both directions ─────────────────────────────────────────────────────────────────


class OpenSession(Message, frozen=True, tag=63):
    """Open a session with a protocol of a peer. The payload is the initial value as msgpack.

    Answered by ``SessionOpened``, ``ApplicationErrorReply`` or ``ErrorReply``. After ``SessionOpened`` both sides send
    the session messages below, all with the id of this message.

    ``identity`` and ``peer`` are those of ``Call``. ``deadline_ms`` is the time for the answer. ``credit`` is the
    number of bytes of ``SessionData`` that the sender of this message takes before it grants more.
    """

    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int
    request_id: str = ""
    """Name of the session in logs and errors; see ``Call``."""
    traceparent: str = ""
    """Span of the caller that this belongs to (W3C Trace Context); empty for none."""


class SessionOpened(Message, frozen=True, tag=64):
    """The session is open. ``credit`` is the one of the other direction; see ``OpenSession``."""

    credit: int
    peer: bytes = b""
    """Verified public key of the peer, 32 bytes. A callee leaves it empty, and the network process fills it in."""
    petname: str = ""
    """Petname of the peer; empty if it is not in the address book."""
    path: str = UNKNOWN
    """Path to the peer; see ``DeliverCall``."""
    address: str = ""
    """Address of the peer; see ``DeliverCall``."""
    rtt_ms: int | None = None
    """Milliseconds of round-trip time; see ``DeliverCall``."""
    shares_memory: bool = False
    """True if the network process answers ``ShareMemory``. A callee leaves it False."""


class SessionData(Message, frozen=True, tag=65):
    """The next bytes of this direction, as the payload. They must be within the credit."""


class SharedData(Message, frozen=True, tag=58):
    """The next bytes of this direction, in the memory of the session instead of the payload. They must be within the
    credit, and stay unchanged until credit for them is granted.

    ``start`` counts from the begin of the sender's half.
    """

    start: int
    size: int


class EndOfStream(Message, frozen=True, tag=66):
    """This direction is complete. Answered by ``Ack`` once the end was passed on."""


class WindowUpdate(Message, frozen=True, tag=67):
    """Grant more credit: ``size`` more bytes may be sent towards the sender of this message."""

    size: int


class ResetStream(Message, frozen=True, tag=68):
    """This direction ends here, incomplete. The code is the protocol's own, or one of ``limits``."""

    code: int


class StopSending(Message, frozen=True, tag=69):
    """The sender no longer reads the other direction. ``ResetStream`` with this code follows, unless it is complete."""

    code: int


# ── program or identity process → network process ────────────────────────────────────────────────


class ShareMemory(Message, frozen=True, tag=83):
    """Ask for memory that this session is to share with the network process, with the id of the session.

    Answered by ``MemoryReady``, or not at all. Once the program has mapped the memory, it sends this message again with
    ``is_mapped``. From then on the network process may send ``SharedData``.
    """

    is_mapped: bool = False


class GetMemory(Message, frozen=True, tag=85):
    """Take the memory of a session over a connection that was made for this message alone.

    Answered by ``Ack``, with the descriptor of the memory beside its bytes, or by ``ErrorReply``.
    """

    token: bytes


class RouteSession(Message, frozen=True, tag=107):
    """Let a worker on another machine take this session, which was not accepted yet, in place of this process.

    Its id is that of the session. Only an identity's own process may send it. Answered by ``SessionRoute``. Once the
    worker has taken the session, this process gets ``Cancel``.
    """

    token_hash: bytes
    """Hash of the token that the worker has made for this session and will show: see ``worker_token.token_hash``."""


class RedeemRoute(Message, frozen=True, tag=109):
    """Take the session that was routed to the worker with this token, over a connection for this session alone.

    Answered by ``Ack``, before which the session arrives as ``DeliverSession``, or by ``ErrorReply``. A token counts
    once, for a few seconds, and for this binding.
    """

    identity: str
    protocol: str
    instance: str
    token: bytes


class RegisterIdentity(Message, frozen=True, tag=70):
    """Bring the identity online, until this connection ends. Answered by ``Ack``.

    ``grant`` proves the permission of the gateway or the supervisor.
    """

    identity: str
    grant: bytes
    listed: bool = True
    """False if the identity's record must not be published to directories or the LAN."""


class RegisterBinding(Message, frozen=True, tag=71):
    """Register this connection for the calls and sessions of one binding. Answered by ``Ack``.

    Registering again replaces the access list. ``allow`` has the entries of ``AddProtocol`` and must not be empty.
    Several programs may register the same binding; each call goes to the least busy one. A program may register before
    the identity is online, and serves whenever it is.
    """

    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...]
    grant: bytes
    limit: int = 0
    """Calls and sessions in flight that this connection takes; 0 stands for the limit of a binding."""
    worker: bytes = b""
    """Number of a worker on another machine, 7 bytes: the daemon knows it again by that after a restart. Its ``grant``
    is the secret of its token."""
    keeps_state: bool = False
    """True if the binding keeps what peers send: see ``Protocol.keeps_state``."""
    claims_calls: bool = False
    """True if this connection claims calls: see ``Protocol.claims_calls``."""
    stateless: bool = False
    """True if callers may spread requests over all daemons of the identity: see ``Protocol.is_stateless``."""


class UnregisterBinding(Message, frozen=True, tag=72):
    """Undo ``RegisterBinding`` for this connection. Calls in flight go on. Answered by ``Ack``."""

    identity: str
    protocol: str
    instance: str


class UnregisterIdentity(Message, frozen=True, tag=73):
    """Undo ``RegisterIdentity``: take the identity offline. Answered by ``Ack``."""

    identity: str


class ReportWaiting(Message, frozen=True, tag=33):
    """Report how much waits for the owner in a binding that the identity's own process serves. Answered by ``Ack``.

    It counts until the next report, or until the binding is not served any more.
    """

    identity: str
    protocol: str
    instance: str
    count: int
    problem: str = ""
    """Reason for which the binding does not work at the moment, for the owner; empty if it does."""


class RequestSleep(Message, frozen=True, tag=56):
    """Let the identity fall asleep, if nothing has used it since. Answered by ``SleepReply``.

    Only the process that has registered the identity may send it.
    """

    identity: str
    activity: int
    """``SleepReply.activity`` of an earlier reply; -1 to ask for it only."""


class SleepReply(Message, frozen=True, tag=57):
    """Answer to a ``RequestSleep``."""

    asleep: bool
    """True if no request comes to the process any more. It has to end, and the identity stays online."""
    activity: int
    """Calls and sessions that the identity's bindings were sent so far."""
    is_used: bool
    """True if the identity or its process has calls, sessions or waits now, or programs serve bindings of it."""


class CallUnknown(Message, frozen=True, tag=82):
    """The sender has never received the call of a ``DeliverCall`` with an ``attempt``."""


# ── network process → program or identity process ────────────────────────────────────────────────


class DeliverCall(Message, frozen=True, tag=80):
    """A call of a binding that this connection has registered. The payload is the caller's request.

    Answered, with the same id, by ``Reply``, ``ApplicationErrorReply`` or ``ErrorReply``. A ``Cancel`` with this id
    means that the caller no longer waits.
    """

    peer: bytes
    """Verified public key of the caller, 32 bytes."""
    petname: str
    """Petname of the caller; empty if it is not in the address book."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    """Command of the protocol; empty for its request handler."""
    call_id: bytes = b""
    """Idempotency key; see ``Call``."""
    attempt: int = 0
    """Number of earlier attempts; see ``Call``. If it is not 0, the callee may have received the call already and
    answers with the outcome. Otherwise it answers ``CallUnknown`` and does not execute the call."""
    path: str = UNKNOWN
    """Path to the caller: ``local`` (the same daemon), ``direct``, ``relayed`` or ``unknown``."""
    address: str = ""
    """Address of the peer daemon, or URL of the relay; empty if there is none."""
    rtt_ms: int | None = None
    """Milliseconds of round-trip time as last measured; None if it is not known."""
    request_id: str = ""
    """Name of the call in logs. A ``*`` at its end stands for the bytes of the correlation id after the eighth, in
    hexadecimal without the leading zeros."""
    traceparent: str = ""
    """Span of the caller that this belongs to (W3C Trace Context); empty for none."""


class DeliverSession(Message, frozen=True, tag=81):
    """A session that a caller opens with a binding of this connection. The payload is the initial value.

    Answered, with the same id, by ``SessionOpened``, ``ApplicationErrorReply`` or ``ErrorReply``. A ``Cancel`` with
    this id means that the caller no longer waits.
    """

    peer: bytes
    """Verified public key of the caller, 32 bytes."""
    petname: str
    """Petname of the caller; empty if it is not in the address book."""
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    credit: int
    """Bytes that the caller takes before it grants more."""
    path: str = UNKNOWN
    """Path to the caller; see ``DeliverCall``."""
    address: str = ""
    """Address of the caller; see ``DeliverCall``."""
    rtt_ms: int | None = None
    """Milliseconds of round-trip time; see ``DeliverCall``."""
    window: int = SESSION_WINDOW
    """Bytes that the callee should take before it grants more. Unknown peers with many sessions get fewer."""
    shares_memory: bool = False
    """True if the network process answers ``ShareMemory``."""
    request_id: str = ""
    """Name of the session in logs; see ``Call``."""
    traceparent: str = ""
    """Span of the caller that this belongs to (W3C Trace Context); empty for none."""


class SessionRoute(Message, frozen=True, tag=108):
    """Answer to ``RouteSession`` with the id of the session: the worker may take it for a few seconds."""

    address: str = ""
    """Host and port at which this daemon listens for workers."""
    fingerprint: bytes = b""
    """SHA-256 of its certificate there."""
    problem: str = ""
    """Why no worker can take the session; empty if one can. The other fields are empty then."""


class HomeChanged(Message, frozen=True, tag=114):
    """Which daemon is the home of a binding that this connection has registered and that keeps state. Has no reply.

    Sent after the registration, if it is another daemon, and each time that this changes.
    """

    identity: str
    protocol: str
    instance: str
    daemon: str
    """Name of the home; empty if it is this daemon."""


class MemoryReady(Message, frozen=True, tag=84):
    """Answer to ``ShareMemory`` with the id of the session: the memory can be taken with this token, once."""

    token: bytes


SessionMessage: TypeAlias = (
    SessionOpened
    | SessionData
    | SharedData
    | MemoryReady
    | SessionRoute
    | EndOfStream
    | Ack
    | WindowUpdate
    | ResetStream
    | StopSending
    | ErrorReply
    | ApplicationErrorReply
    | Cancel
)
"""Messages of both sides with the id of a session."""


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
    | ReportWaiting
    | RequestSleep
    | WaitForPeer
    | OpenSession
    | SessionOpened
    | SessionData
    | SharedData
    | ShareMemory
    | GetMemory
    | RouteSession
    | RedeemRoute
    | EndOfStream
    | Ack
    | WindowUpdate
    | ResetStream
    | StopSending
)
"""Messages that a program or identity process sends to the network process."""


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
    | SharedData
    | MemoryReady
    | SessionRoute
    | HomeChanged
    | SleepReply
    | EndOfStream
    | WindowUpdate
    | ResetStream
    | StopSending
)
"""Messages that the network process sends to a program or identity process."""
