"""The leash: what the supervisor and each of its children say to each other.

One ``AF_UNIX`` ``SOCK_SEQPACKET`` pair per child, made by the supervisor and inherited, so that nobody else can reach
it. A message is one packet of at most ``MAX_MESSAGE`` bytes: a struct below as a msgpack array, its integer tag first.
End of file at the child means that the supervisor is gone. The supervisor takes anything else than a message from
a child as a fault of that child, and ends it.

Only the gateway's requests are granted; everybody else's are answered with ``Forbidden``.
"""

from __future__ import annotations

import socket
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import PayloadTooLarge
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    Ack,
    ErrorReply,
)

__all__ = [
    "MAX_MESSAGE",
    "Ack",
    "ChildRequest",
    "ChildResponse",
    "ControlProtocolError",
    "EnsureOnline",
    "ErrorReply",
    "Exiting",
    "FaultExcluded",
    "FromChild",
    "FromSupervisor",
    "GetProcesses",
    "Heartbeat",
    "ProcessInfo",
    "ProcessLimit",
    "ProcessList",
    "Ready",
    "Request",
    "Result",
    "Shutdown",
    "StartIdentity",
    "StopIdentity",
    "encode",
    "open_pair",
    "receive_from_child",
    "receive_from_supervisor",
    "send",
]

MAX_MESSAGE: Final = 64 * 1024
"""Bytes in one packet, either way."""
MAX_REASON: Final = 400
"""Characters of ``Failed.reason`` that are kept."""


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A struct that travels as an array with its tag first."""


# ── what a child may ask for ─────────────────────────────────────────────────────────────────────


class StartIdentity(_Message, frozen=True, tag=10):
    """Runs the identity's process; answered by ``Ack`` once it is ready, at once if it is already.

    One that is parked as failed is tried afresh. Fails with ``IdentityFailed`` when it does not stay up, or is
    stopped meanwhile.
    """

    name: str


class StopIdentity(_Message, frozen=True, tag=11):
    """Ends the identity's process, after letting it drain; answered by ``Ack`` once it is gone."""

    name: str


class EnsureOnline(_Message, frozen=True, tag=12):
    """Starts those of the identities that are not running. Answered by ``Ack`` at once: ``GetProcesses`` tells how
    they get on. One that is parked as failed stays so, and identities that are not named are left alone."""

    names: tuple[str, ...]


class GetProcesses(_Message, frozen=True, tag=13):
    """Answered by ``ProcessList``."""


Request: TypeAlias = StartIdentity | StopIdentity | EnsureOnline | GetProcesses


# ── child → supervisor ───────────────────────────────────────────────────────────────────────────


class Ready(_Message, frozen=True, tag=1):
    """I can serve."""


class Heartbeat(_Message, frozen=True, tag=2):
    """My event loop turns."""

    memory: int = 0
    """Bytes that I use, as ``process.own_memory`` has it; 0 when nothing new is to be said."""


class ChildRequest(_Message, frozen=True, tag=3):
    """Answered by a ``ChildResponse`` with the same id."""

    id: int
    request: Request


class Exiting(_Message, frozen=True, tag=4):
    """I am about to exit, for this reason: words for people."""

    reason: str


class FaultExcluded(_Message, frozen=True, tag=5):
    """I start without what has ended the processes before me: their ends say nothing about mine."""


class ProcessLimit(_Message, frozen=True, tag=6):
    """No more than so many processes may descend from me; 0 for no limit."""

    processes: int


FromChild: TypeAlias = ProcessLimit | Ready | Heartbeat | ChildRequest | Exiting | FaultExcluded


# ── supervisor → child ───────────────────────────────────────────────────────────────────────────


class ProcessInfo(_Message, frozen=True):
    """One process of the tree."""

    name: str
    pid: int
    """0 while there is none."""
    state: str
    """``starting``, ``ready``, ``backoff``, ``stopping``, ``failed``."""
    started_ms: int
    """Start of the present process: ``process.boot_ms``."""
    restarts: int
    last_exit: str
    """How the process before the present one ended; empty when there was none."""
    memory: int = 0
    """Bytes that the process has said it uses; 0 before it has."""


class ProcessList(_Message, frozen=True, tag=30):
    """Every process, the supervisor first."""

    processes: list[ProcessInfo]


Result: TypeAlias = Ack | ErrorReply | ProcessList


class ChildResponse(_Message, frozen=True, tag=20):
    id: int
    result: Result


class Shutdown(_Message, frozen=True, tag=21):
    """Drain, then exit; the same as SIGTERM."""


FromSupervisor: TypeAlias = ChildResponse | Shutdown


# ── the packets ──────────────────────────────────────────────────────────────────────────────────


class ControlProtocolError(Exception):
    """What arrived is no message of the leash."""


encode = msgspec.msgpack.Encoder().encode
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_from_supervisor: msgspec.msgpack.Decoder[FromSupervisor] = msgspec.msgpack.Decoder(FromSupervisor)


def open_pair() -> tuple[socket.socket, socket.socket]:
    """A new leash: the supervisor's end and the child's, neither of them blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(leash: socket.socket, message: FromChild | FromSupervisor) -> bool:
    """Whether the message is on its way: not when the other end does not read and its queue is full.

    Raises:
        OSError: the other end is gone.
        PayloadTooLarge: the message is larger than ``MAX_MESSAGE``.
    """
    packet = encode(message)
    if len(packet) > MAX_MESSAGE:
        raise PayloadTooLarge(size=len(packet), limit=MAX_MESSAGE)
    try:
        leash.send(packet)
    except BlockingIOError:
        return False
    return True


def receive_from_child(leash: socket.socket) -> FromChild:
    """The next message of a child.

    Raises:
        BlockingIOError: there is none at the moment.
        EOFError: the child has closed its end, or is gone.
        ControlProtocolError: it sent something else.
    """
    packet = _packet(leash)
    try:
        return _from_child.decode(packet)
    except UNDECODABLE as error:
        raise ControlProtocolError(str(error)) from None


def receive_from_supervisor(leash: socket.socket) -> FromSupervisor:
    """The next message of the supervisor; raises like ``receive_from_child``."""
    packet = _packet(leash)
    try:
        return _from_supervisor.decode(packet)
    except UNDECODABLE as error:
        raise ControlProtocolError(str(error)) from None


def _packet(leash: socket.socket) -> bytes:
    try:
        packet = leash.recv(MAX_MESSAGE + 1)
    except ConnectionResetError:
        raise EOFError from None
    if not packet:
        raise EOFError
    if len(packet) > MAX_MESSAGE:
        raise ControlProtocolError(f"a packet of more than {MAX_MESSAGE} bytes")
    return packet
