"""Control channel: messages between the supervisor and each of its children.

The supervisor creates one ``AF_UNIX`` ``SOCK_SEQPACKET`` pair per child. The child inherits its end, so no other
process can reach it. A message is one packet of at most ``MAX_MESSAGE`` bytes: a struct below as a msgpack array, its
integer tag first. End of file at the child means that the supervisor is gone. If a child sends anything else than a
message, the supervisor ends it.

Which child may send which request is in ``ALLOWED_REQUESTS`` of the supervisor. Others are answered with ``Forbidden``.
"""

from __future__ import annotations

import os
import socket
from typing import Final, NamedTuple, TypeAlias

import msgspec

from fastn_p2p_client.errors import PayloadTooLarge
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, ErrorReply

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one packet, in either direction."""
MAX_REASON: Final = 400
"""Characters of ``Exiting.reason`` that are kept."""
MAX_DESCRIPTORS: Final = 2
"""Descriptors of one packet of a child."""


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Base of all messages: an array with its tag first."""


# ── requests of a child ──────────────────────────────────────────────────────────────────────────


class StartIdentity(_Message, frozen=True, tag=10):
    """Run the identity's process. The reply is ``Ack`` once it is ready, at once if it is ready already.

    A process that failed before is started again. Fails with ``IdentityFailed`` if the process keeps ending, or if it
    is stopped meanwhile.
    """

    name: str


class StopIdentity(_Message, frozen=True, tag=11):
    """Let the identity's process drain, then end it. The reply is ``Ack`` once it is gone."""

    name: str


class EnsureOnline(_Message, frozen=True, tag=12):
    """Start the processes of these identities that are not running. The reply is ``Ack`` at once; ``GetProcesses``
    reports their progress. A failed process stays failed. Other identities are left as they are."""

    names: tuple[str, ...]


class GetProcesses(_Message, frozen=True, tag=13):
    """List all processes. The reply is ``ProcessList``."""


class OpenSocket(_Message, frozen=True, tag=14):
    """Connect to a Unix socket for the child: for an identity's process that of the network process, that of the
    gateway, or one that its owner has granted; for the network process that of the vault.

    The reply is ``Opened``, with the connected socket as the packet's descriptor.
    """

    path: str


class OpenConfig(_Message, frozen=True, tag=15):
    """Open ``config.toml`` for the child. The reply is ``Opened``, with the file as the packet's descriptor."""


class RunWorker(_Message, frozen=True, tag=16):
    """Run a one-shot worker. The reply is ``WorkerEnded`` once it and all that it started are gone.

    The packet has two descriptors: a stream socket for the task and the reply, and a pipe for the worker's output.
    """

    seconds: float
    """Time after which it is killed."""
    directory: str = ""
    """Name of the directory in ``identities/`` whose user it takes, if identities have users of their own; empty for
    the one of no identity."""


class RestartNetwork(_Message, frozen=True, tag=18):
    """Let the network process drain, and start the next one. The reply is ``Ack`` once that one is ready."""


class LimitIdentity(_Message, frozen=True, tag=19):
    """Set the limits of the identity's process, if there is one; 0 stands for no limit. The reply is ``Ack``.

    The process itself may not change them in its sandbox.
    """

    name: str
    memory: int
    processes: int
    file_size: int
    open_files: int


class KeepAsleep(_Message, frozen=True, tag=24):
    """Let the network process wake these identities. Those that have a process keep it. The reply is ``Ack``."""

    names: tuple[str, ...]


class WakeIdentity(_Message, frozen=True, tag=25):
    """Start the process of an identity that is asleep. The reply is ``Ack`` once it is ready.

    Fails with ``IdentityFailed`` if the identity is not asleep, or if the process keeps ending.
    """

    name: str


class FallAsleep(_Message, frozen=True, tag=26):
    """Expect this process to end in order, which is no crash: its identity is asleep then.

    The reply is ``Ack``. If the identity is to be started meanwhile, it is started again after the process has ended.
    """


class ChangeLogLevel(_Message, frozen=True, tag=22):
    """Log lines of this level and above in all processes of the daemon, from now on. The reply is ``Ack``."""

    level: str


Request: TypeAlias = (
    ChangeLogLevel
    | KeepAsleep
    | WakeIdentity
    | FallAsleep
    | LimitIdentity
    | StartIdentity
    | StopIdentity
    | EnsureOnline
    | GetProcesses
    | OpenSocket
    | OpenConfig
    | RunWorker
    | RestartNetwork
)


# ── child → supervisor ───────────────────────────────────────────────────────────────────────────


class Ready(_Message, frozen=True, tag=1):
    """Notification that the actor serves."""


class Heartbeat(_Message, frozen=True, tag=2):
    """Notification that the actor's event loop runs."""

    memory: int = 0
    """Bytes of ``process_setup.own_memory``; 0 if they were not measured this time."""


class ChildRequest(_Message, frozen=True, tag=3):
    """Request to the supervisor. The reply is a ``ChildResponse`` with the same id."""

    id: int
    request: Request


class Exiting(_Message, frozen=True, tag=4):
    """Notification that the process is about to exit, with the reason in plain words."""

    reason: str


class FaultExcluded(_Message, frozen=True, tag=5):
    """Notification that the process started without the binding that crashed the ones before: restarts count anew."""


class ProcessLimit(_Message, frozen=True, tag=6):
    """Most processes that may descend from this one; 0 for no limit. Later ones of the same process change nothing."""

    processes: int


class KeepDescriptor(_Message, frozen=True, tag=7):
    """Request to keep the descriptor of this packet for the next process of this actor, in place of the one before.

    Without a descriptor, the one before is closed. Only the vault may send it. There is no reply.
    """


class Sandboxed(_Message, frozen=True, tag=8):
    """Notification that the process has entered its sandbox, or that this has refused something."""

    state: str
    """``closed``, or ``open: ...`` with the reason."""
    refused: str = ""
    """Attempts of protocol code that it has refused, in a few words."""


class EndWorker(_Message, frozen=True, tag=9):
    """Request to kill a worker. ``id`` is that of the ``ChildRequest`` with which it was started."""

    id: int


class Restarting(_Message, frozen=True, tag=17):
    """Notification that the process is about to exit in order, to be started again at once. This counts as no crash."""


class StayAwake(_Message, frozen=True, tag=27):
    """Notification that the process goes on after all, although it has sent ``FallAsleep``."""


FromChild: TypeAlias = (
    ProcessLimit
    | StayAwake
    | Ready
    | Heartbeat
    | ChildRequest
    | Exiting
    | FaultExcluded
    | KeepDescriptor
    | Sandboxed
    | EndWorker
    | Restarting
)


# ── supervisor → child ───────────────────────────────────────────────────────────────────────────


class ProcessInfo(_Message, frozen=True):
    """State of one process of the daemon."""

    name: str
    pid: int
    """0 while there is no process."""
    state: str
    """``starting``, ``ready``, ``backoff``, ``stopping`` or ``failed``."""
    started_ms: int
    """Start of the present process in ``process_setup.boot_ms``."""
    restarts: int
    last_exit: str
    """How the previous process ended; empty if there was none."""
    memory: int = 0
    """Bytes that the process has reported; 0 before its first report."""
    sandbox: str = ""
    """State of its sandbox, as in ``Sandboxed``; empty if it has none."""
    refused: str = ""
    """Attempts of protocol code that the sandbox has refused, as in ``Sandboxed``."""


class ProcessList(_Message, frozen=True, tag=30):
    """Every process of the daemon, the supervisor first."""

    processes: list[ProcessInfo]


class Opened(_Message, frozen=True, tag=31):
    """The packet carries the descriptor, or ``error`` is the number of the error (errno) with which that failed."""

    error: int = 0


class WorkerEnded(_Message, frozen=True, tag=32):
    """Exit code of a worker (negative: the signal that ended it), and whether it took too long. None if unknown."""

    exit_code: int | None
    timed_out: bool = False


Result: TypeAlias = Ack | ErrorReply | ProcessList | Opened | WorkerEnded


class ChildResponse(_Message, frozen=True, tag=20):
    id: int
    result: Result


class Shutdown(_Message, frozen=True, tag=21):
    """Drain, then exit; the same as SIGTERM."""


class SetLogLevel(_Message, frozen=True, tag=23):
    """Log lines of this level and above from now on."""

    level: str


FromSupervisor: TypeAlias = ChildResponse | Shutdown | SetLogLevel


# ── packets ──────────────────────────────────────────────────────────────────────────────────────


class ControlProtocolError(Exception):
    """A packet that is no message of the control channel."""


encode = msgspec.msgpack.Encoder().encode
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_from_supervisor: msgspec.msgpack.Decoder[FromSupervisor] = msgspec.msgpack.Decoder(FromSupervisor)


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Create a control channel: the supervisor's end and the child's, both non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(channel: socket.socket, message: FromChild | FromSupervisor, *descriptors: int) -> bool:
    """Send a message. Return False if the receiver does not read and its queue is full.

    Args:
        channel: the sender's end.
        message: the message.
        descriptors: open files of which the receiver gets copies.

    Raises:
        OSError: the receiver is gone.
        PayloadTooLarge: the message is larger than ``MAX_MESSAGE``.
    """
    packet = encode(message)
    if len(packet) > MAX_MESSAGE:
        raise PayloadTooLarge(size=len(packet), limit=MAX_MESSAGE)
    try:
        if descriptors:
            socket.send_fds(channel, [packet], descriptors)
        else:
            channel.send(packet)
    except BlockingIOError:
        return False
    return True


def receive_from_child(channel: socket.socket) -> FromChild:
    """Return the next message of a child.

    Raises:
        BlockingIOError: no message has arrived yet.
        EOFError: the child has closed its end, or is gone.
        ControlProtocolError: the packet is no message of a child.
    """
    packet = _receive_packet(channel)
    try:
        return _from_child.decode(packet)
    except UNDECODABLE as error:
        raise ControlProtocolError(str(error)) from None


def receive_with_descriptors(channel: socket.socket) -> tuple[FromChild, list[int]]:
    """Return the next message of a child that may send descriptors, and these. Raises as the above."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE + 1, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        raise EOFError from None
    try:
        return _from_child.decode(_check_packet(packet)), descriptors
    except BaseException as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, UNDECODABLE):
            raise ControlProtocolError(str(error)) from None
        raise


class Received(NamedTuple):
    """Message of the supervisor, and the descriptor that came with it. The receiver owns the descriptor."""

    message: FromSupervisor
    descriptor: int | None


def receive_from_supervisor(channel: socket.socket) -> Received:
    """Return the next message of the supervisor.

    Raises:
        BlockingIOError: no message has arrived yet.
        EOFError: the supervisor is gone.
        ControlProtocolError: the packet is no message of the supervisor.
    """
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE + 1, 1)
    except ConnectionResetError:
        raise EOFError from None
    descriptor = descriptors[0] if descriptors else None
    try:
        message = _from_supervisor.decode(_check_packet(packet))
    except (ControlProtocolError, EOFError, *UNDECODABLE) as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, ControlProtocolError | EOFError):
            raise
        raise ControlProtocolError(str(error)) from None
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
    return Received(message, descriptor)


def _receive_packet(channel: socket.socket) -> bytes:
    try:
        return _check_packet(channel.recv(MAX_MESSAGE + 1))
    except ConnectionResetError:
        raise EOFError from None


def _check_packet(packet: bytes) -> bytes:
    if not packet:
        raise EOFError
    if len(packet) > MAX_MESSAGE:
        raise ControlProtocolError(f"packet larger than {MAX_MESSAGE} bytes")
    return packet
