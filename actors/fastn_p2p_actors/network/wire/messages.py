"""The wire protocol between daemons, ALPN ``fastn-p2p/1``: frames and messages.

A frame is ``header length (2 bytes), payload length (4 bytes), header, payload``, lengths big-endian; the header
is one of the structs below as a msgpack array with its integer tag first. The call channel is the first
bidirectional stream of a connection, opened by whoever dialled, and carries frames both ways for the life of the
connection. A session is asked for and accepted there too; its bytes have a bidirectional stream of their own, which
``Stream`` announces. A request or reply whose payload is above ``BULK_THRESHOLD`` travels as one frame on a
unidirectional stream of its own, a request there preceded by the ``Introduce`` of its source. Ids are chosen by whoever
sends the request, and are unique per connection and direction.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import BadMessage, HandlerFailed, LocalError, P2PError, error_from
from fastn_p2p_client.ipc.messages import UNDECODABLE, Message

ALPN: Final = b"fastn-p2p/1"
WIRE_VERSION: Final = 1
BULK_THRESHOLD: Final = 64 * 1024
"""Payload bytes above which a frame gets a stream of its own, so that nobody waits behind it."""

# Application error codes of a closed connection (QUIC, RFC 9000 section 10.2).
CLOSE_SHUTDOWN: Final = 0
CLOSE_IDLE: Final = 1
CLOSE_VERSION: Final = 2
CLOSE_PROTOCOL_ERROR: Final = 3
CLOSE_REPLACED: Final = 4


class Hello(Message, frozen=True, tag=0):
    """First frame of each side on the call channel."""

    version: int
    process: bytes
    """Random, 8 bytes, made at each start of the network process: another value for the same endpoint means that
    the earlier process, and every connection with it, is gone."""
    max_payload: int
    max_calls: int
    pauses: bool = False
    """True if the sender of this understands ``Pause`` and ``Resume``."""


class Introduce(Message, frozen=True, tag=1):
    """A signed delegation: this identity speaks through the sender's endpoint. Comes before its first request."""

    delegation: bytes


class Request(Message, frozen=True, tag=2):
    """A call. Keys are 32 bytes, the deadline is the time that is left, the last three as in the client's ``Call``."""

    id: int
    source: bytes
    target: bytes
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    call_id: bytes = b""
    attempt: int = 0


class Reply(Message, frozen=True, tag=3):
    """The handler's answer is the payload."""

    id: int


class ApplicationErrorReply(Message, frozen=True, tag=4):
    """The handler said no, on purpose; its data is the payload."""

    id: int
    kind: str
    message: str


class ErrorReply(Message, frozen=True, tag=5):
    """The request ended with an error of the system: code and fields of the client protocol's table."""

    id: int
    code: str
    fields: dict[str, Any]


class Cancel(Message, frozen=True, tag=6):
    """Nobody waits for this request any more. No answer."""

    id: int


class Ping(Message, frozen=True, tag=7):
    """Are you there? Answered by ``Pong``."""


class Pong(Message, frozen=True, tag=8):
    """Yes."""


class RequestIntroduction(Message, frozen=True, tag=9):
    """Introduce this identity (32 bytes) if it speaks through your endpoint. Answered by ``Introduce``, or not."""

    identity: bytes


class OpenSession(Message, frozen=True, tag=10):
    """Asks for a session; the payload is the initial data. Fields as in ``Request``, whose ids it shares."""

    id: int
    source: bytes
    target: bytes
    protocol: str
    instance: str
    deadline_ms: int


class SessionAccepted(Message, frozen=True, tag=11):
    """The session stands. The payload is the first that comes back, at most ``BULK_THRESHOLD`` bytes."""

    id: int


class SessionStream(Message, frozen=True, tag=12):
    """Whoever asked for the session has opened its stream: the first byte there is 0, which says nothing; what follows,
    and what comes back, are the session's bytes. Said here, as a stream that is reset at once has lost its bytes."""

    id: int
    stream: int
    """Its number as QUIC has it (RFC 9000, section 2.1)."""


class Pause(Message, frozen=True, tag=13):
    """Write nothing more on the stream of a session until ``Resume`` comes: what has come is not read as fast."""

    stream: int
    """As in ``SessionStream``."""


class Resume(Message, frozen=True, tag=14):
    """The stream of a session may be written again."""

    stream: int
    """As in ``SessionStream``."""


WireMessage: TypeAlias = (
    Hello
    | Introduce
    | Request
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
)

_decoder: Final[msgspec.msgpack.Decoder[WireMessage]] = msgspec.msgpack.Decoder(WireMessage)


def decode_wire(header: bytes | memoryview) -> WireMessage:
    """The message in a frame's header.

    Raises:
        BadMessage: it is none.
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
