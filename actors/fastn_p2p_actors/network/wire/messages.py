"""Messages of the wire protocol between daemons, ALPN ``fastn-p2p/1``.

Each message is the header of a frame (``framing``): a msgpack array with the message's integer tag first.

The call channel is the first bidirectional stream of a connection. The daemon that dialled opens it, and it carries
frames both ways for the life of the connection. Sessions are requested and accepted there too; the bytes of a session
have a bidirectional stream of their own, which ``SessionStream`` announces. A request or reply with a payload above
``BULK_THRESHOLD`` travels as one frame on a unidirectional stream of its own. A request there is preceded by the
``Introduce`` of its source. The sender of a request chooses its id, unique per connection and direction.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import BadMessage, HandlerFailed, LocalError, P2PError, error_from
from fastn_p2p_client.ipc.messages import UNDECODABLE, Message

ALPN: Final = b"fastn-p2p/1"
WIRE_VERSION: Final = 1
"""Newest version of the wire protocol that this version speaks. Both daemons use the newest that both speak."""
OLDEST_WIRE_VERSION: Final = 1
BULK_THRESHOLD: Final = 64 * 1024
"""Bytes of payload above which a frame gets a stream of its own, so that no other frame waits behind it."""

UNKNOWN_START: Final = b"unknown"
"""Stands in ``RepeatedRequest.earlier`` for an earlier start of the receiver that is not known any more."""
ANOTHER_START: Final = b"another"
"""Stands there for the start of another daemon that is not known."""

# Application error codes of a closed connection (QUIC, RFC 9000, section 10.2).
CLOSE_SHUTDOWN: Final = 0
CLOSE_IDLE: Final = 1
CLOSE_VERSION: Final = 2
CLOSE_PROTOCOL_ERROR: Final = 3
CLOSE_REPLACED: Final = 4


class Hello(Message, frozen=True, tag=0):
    """First frame of each side on the call channel."""

    version: int
    """Oldest version that the sender speaks."""
    process: bytes
    """8 random bytes, made at each start of the network process. Another value for the same endpoint means that the
    earlier process has ended, and every connection with it."""
    max_payload: int
    max_calls: int
    pauses: bool = False
    """True if the sender understands ``Pause`` and ``Resume``."""
    news: bool = False
    """True if the sender understands ``ObservedAddress``, ``PushRecord`` and ``IdentityOffline``."""
    invitations: bool = False
    """True if the sender understands ``RedeemInvitation``."""
    newest: int = 0
    """Newest version that the sender speaks; 0 if that is ``version``."""
    replicas: bool = False
    """True if the sender understands ``RenewReplica``."""
    start: bytes = b""
    """8 random bytes, made at each start of the daemon. Its processes may have been restarted since. A sender that has
    it understands ``RepeatedRequest``."""
    age_ms: int = 0
    """Milliseconds since that start."""
    owners: bool = False
    """True if the sender understands ``ShowOwner``."""


class Introduce(Message, frozen=True, tag=1):
    """A signed delegation: this identity speaks through the sender's endpoint. Sent before the identity's first
    request."""

    delegation: bytes


class Request(Message, frozen=True, tag=2):
    """A call.

    ``source`` and ``target`` are public keys, 32 bytes each. ``deadline_ms`` is the time that is left. The fields from
    ``command`` to ``request_id`` have the meaning that they have in ``fastn_p2p_client.ipc.messages.Call``.
    """

    id: int
    source: bytes
    target: bytes
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    call_id: bytes = b""
    attempt: int = 0
    request_id: str = ""
    number: bytes = b""
    """Bytes that ``*`` at the end of ``request_id`` stands for, at most 8."""
    traceparent: str = ""


class RepeatedRequest(Request, frozen=True, tag=22):
    """A call of which another start of the daemon, or another daemon of the callee, may have got an earlier attempt.

    A process that has had the call answers with its outcome. If none has, the call is not executed: it ends with
    ``OutcomeUnknown``. A binding whose daemons share claims finds there whether it may be executed.
    """

    earlier: bytes = b""
    """``Hello.start`` of the daemon that got the earlier attempt, ``UNKNOWN_START`` or ``ANOTHER_START``."""

    @classmethod
    def of(cls, request: Request, earlier: bytes) -> RepeatedRequest:
        """Return ``request`` with the start of a daemon that got an earlier attempt."""
        return cls(
            request.id, request.source, request.target, request.protocol, request.instance, request.deadline_ms,
            request.command, request.call_id, request.attempt, request.request_id, request.number,
            request.traceparent, earlier,
        )  # fmt: skip


class Reply(Message, frozen=True, tag=3):
    """Reply to a ``Request``. The payload is the handler's result."""

    id: int


class ApplicationErrorReply(Message, frozen=True, tag=4):
    """Error that the handler raised on purpose. The payload is its data."""

    id: int
    kind: str
    message: str


class ErrorReply(Message, frozen=True, tag=5):
    """Error of the system that ended the request: code and fields as in ``fastn_p2p_client.errors``."""

    id: int
    code: str
    fields: dict[str, Any]


class Cancel(Message, frozen=True, tag=6):
    """Cancels a request: its caller no longer waits for a reply. Has no reply."""

    id: int


class Ping(Message, frozen=True, tag=7):
    """Checks that the connection works. Answered by ``Pong``."""


class Pong(Message, frozen=True, tag=8):
    """Reply to ``Ping``."""


class RequestIntroduction(Message, frozen=True, tag=9):
    """Asks for the ``Introduce`` of an identity (32 bytes). Answered by ``IdentityOffline`` while it does not speak
    through the receiver's endpoint."""

    identity: bytes


class OpenSession(Message, frozen=True, tag=10):
    """Requests a session. The payload is the initial data. Shares its fields and its ids with ``Request``."""

    id: int
    source: bytes
    target: bytes
    protocol: str
    instance: str
    deadline_ms: int
    request_id: str = ""
    traceparent: str = ""


class SessionAccepted(Message, frozen=True, tag=11):
    """Accepts a session. The payload is the first data in the other direction, at most ``BULK_THRESHOLD`` bytes."""

    id: int


class SessionStream(Message, frozen=True, tag=12):
    """Announces the QUIC stream of a session. The daemon that requested the session has opened it.

    The first byte on the stream is 0 and has no meaning; all other bytes in both directions are the session's. The
    announcement travels on the call channel because a stream that is reset at once loses its bytes.
    """

    id: int
    stream: int
    """QUIC stream id (RFC 9000, section 2.1)."""


class Pause(Message, frozen=True, tag=13):
    """Asks the peer to stop writing on a session's stream until ``Resume``, because its bytes are read more slowly."""

    stream: int
    """QUIC stream id, as in ``SessionStream``."""


class Resume(Message, frozen=True, tag=14):
    """Allows writing on a session's stream again."""

    stream: int
    """QUIC stream id, as in ``SessionStream``."""


class ObservedAddress(Message, frozen=True, tag=15):
    """Address (``ip:port``) of the receiver as the sender sees it on a direct path. Sent when it is known, and when it
    changes."""

    address: str


class PushRecord(Message, frozen=True, tag=16):
    """New signed record of an identity that the receiver knows: it was introduced over this connection, or asked
    for."""

    record: bytes


class IdentityOffline(Message, frozen=True, tag=17):
    """An identity (32 bytes) is offline. Ends what ``Introduce`` has begun, or answers ``RequestIntroduction``."""

    identity: bytes


class RedeemInvitation(Message, frozen=True, tag=20):
    """Redeems an invitation of ``target``: ``source`` asks to be let in. Shares its ids with ``Request``.

    Answered by ``Reply`` without a payload, or by ``ErrorReply``. Both keys are public keys, 32 bytes each. The same
    bearer may send it again: it counts once.
    """

    id: int
    source: bytes
    target: bytes
    secret: bytes
    """Secret in the invitation, 16 bytes."""
    name: str = ""
    """Name that the owner of ``source`` gave it."""
    record: bytes = b""
    """Signed record of ``source``, so that the inviter can call it."""

    def __repr__(self) -> str:
        return f"RedeemInvitation({self.id}, name={self.name!r})"


class RenewReplica(Message, frozen=True, tag=21):
    """Reports where a replica of an identity (32 bytes) is, to the daemon that has the key. Shares its ids with
    ``Request``.

    Answered by ``Reply`` whose payload is a ``ReplicaGrant``, or by ``ErrorReply``. The connection proves the replica's
    endpoint, and the vault of the receiver knows which endpoints it has enrolled.
    """

    id: int
    identity: bytes
    relays: tuple[str, ...]
    addresses: tuple[str, ...]
    is_online: bool
    """False if the replica does not serve the identity at the moment."""
    wants_delegation: bool
    """True if the sender needs a new delegation."""
    bindings: tuple[tuple[str, str], ...] = ()
    """Protocol and instance of bindings there that keep state and have no home yet, as far as the sender knows."""


class SpreadRequests(Message, frozen=True, tag=23):
    """A binding of an identity (32 bytes) keeps nothing: any daemon that serves it may get further calls and sessions.

    Sent to a daemon whose hello has a ``start`` when it uses the binding, and again after half a minute.
    """

    identity: bytes
    protocol: str
    instance: str


class ShowOwner(Message, frozen=True, tag=24):
    """Shows which daemon renews the replicas of an identity (32 bytes), to another daemon of the same identity.

    Has no reply, but a receiver that knows a higher statement shows that one.
    """

    identity: bytes
    statement: bytes
    """Highest signed ``OwnerStatement`` that the sender knows; empty for none."""
    record: bytes = b""
    """Signed record of the identity, by which that daemon is found; empty without one."""


WireMessage: TypeAlias = (
    Hello
    | Introduce
    | Request
    | RepeatedRequest
    | Reply
    | ApplicationErrorReply
    | ErrorReply
    | Cancel
    | Ping
    | Pong
    | RequestIntroduction
    | OpenSession
    | SessionAccepted
    | SessionStream
    | Pause
    | Resume
    | ObservedAddress
    | PushRecord
    | IdentityOffline
    | RedeemInvitation
    | RenewReplica
    | SpreadRequests
    | ShowOwner
)

_decoder: Final[msgspec.msgpack.Decoder[WireMessage]] = msgspec.msgpack.Decoder(WireMessage)


def decode_wire(header: bytes | memoryview) -> WireMessage:
    """Decode a frame's header.

    Raises:
        BadMessage: the header is not a message.
    """
    try:
        return _decoder.decode(header)
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from error


def remote_error(message: ErrorReply) -> P2PError:
    """Convert a peer's error reply to an exception.

    A peer cannot know local state, so a ``LocalError`` becomes ``HandlerFailed``.
    """
    error = error_from(message.code, message.fields)
    if isinstance(error, LocalError):
        return HandlerFailed(peer="the peer", protocol="the protocol", reason=f"its daemon says {error.code}")
    return error
