"""Mailbox of an actor: the Unix socket that it reads.

The mailbox speaks ZMTP 3.1 as a ROUTER, so that the DEALER of any ZeroMQ library can write to it. It passes each
message on as ``(sender, correlation id, header, payload)`` and answers frames of another shape with an error reply. The
kernel identifies the sender: uid and pid of the process that connected. The vault's mailbox also requires keys: see
``curve/mailbox.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import ErrorReply, LongReply, encode
from fastn_p2p_client.ipc.transport.native.codec import FRAMES, Payload
from fastn_p2p_client.ipc.transport.native.connection import ZmtpConnection
from fastn_p2p_client.limits import BACKLOG, CORRELATION_ID_MAX, MAX_HEADER, MAX_PAYLOAD, SEND_QUEUE_BYTES

from .connection_limits import ConnectionLimits, Process, process_of
from .identity_sockets import identity_label
from .mailbox_memory import MAX_HELD, MailboxMemory
from .separate_users import may_connect

if TYPE_CHECKING:
    from ssl import SSLContext

_LONG: Final = encode(LongReply())
CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""
_ACCEPT_BATCH: Final = 64
"""Connections accepted before other work of the event loop runs."""
_ACCEPT_RETRY_SECONDS: Final = 0.1
"""Seconds until the mailbox accepts again after the kernel had no descriptor for a connection."""

log = logging.getLogger(__name__)


class Sender:
    """Connection to a mailbox, as the kernel describes it. Compares by identity."""

    __slots__ = ("answered_at", "connection", "gone", "identity", "is_remote", "pid", "state", "uid")

    def __init__(self, uid: int, pid: int, identity: str | None = None, *, is_remote: bool = False) -> None:
        self.is_remote = is_remote
        """True for a worker on another machine, which is no process of this one. Its ``pid`` is negative."""
        self.uid = uid
        self.pid = pid
        self.identity = identity
        """Name of the identity whose process has the connection; empty for another process of the daemon, None for a
        program. The code of protocols is behind both, so it may not do what programs may."""
        self.connection: ZmtpConnection
        self.gone = False
        self.answered_at = 0.0
        """For the owner of the mailbox: time of its last reply to this sender (monotonic seconds)."""
        self.state: object = None
        """For the owner of the mailbox: its own data about this connection."""

    @property
    def backlog(self) -> int:
        """Bytes that were sent to this sender and that the kernel has not taken yet."""
        return self.connection.unsent_bytes

    @property
    def is_behind(self) -> bool:
        """Return whether the sender does not read: further messages to it wait in this process."""
        return self.connection.is_behind

    def __repr__(self) -> str:
        return f"<sender pid={self.pid}>"


OnMessage: TypeAlias = Callable[[Sender, bytes, bytes, bytes], None]


def bind_mailbox(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, for a process that soon may make no Unix sockets. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)  # before ``listen``: until then no process can connect
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def encode_invalid_message(frames: list[bytes], reason: str) -> bytes:
    """Return the error reply to invalid frames, under their first frame as correlation id.

    Empty if the first frame is too long for a correlation id.
    """
    if not frames or len(frames[0]) > CORRELATION_ID_MAX:
        return b""
    error: P2PError = BadMessage(reason=reason)
    if len(frames) == FRAMES and len(frames[2]) > MAX_PAYLOAD:
        error = PayloadTooLarge(size=len(frames[2]), limit=MAX_PAYLOAD)
    return encode(ErrorReply.of(error))


class Mailbox:
    """Mailbox of one actor. ``open`` binds it inside a running event loop.

    Args:
        path: the socket. Its directory must exist with mode 0700. An existing file is replaced.
        on_message: gets (sender, correlation id, header, payload). It must not raise or block.
        on_gone: gets each sender whose connection has ended, after its last message.
        uid: the user whose processes may connect; by default those of ``may_connect``.
        limits: limits of the open connections. Messages over further connections are answered with ``Overloaded``.
        max_held: bytes that all connections together may hold.
        listener: result of ``bind_mailbox`` for ``path``, if the socket was bound already. It stays open: its owner
            closes it.
    """

    def __init__(
        self,
        path: Path,
        on_message: OnMessage,
        *,
        on_gone: Callable[[Sender], None] | None = None,
        uid: int | None = None,
        limits: ConnectionLimits | None = None,
        max_held: int = MAX_HELD,
        listener: socket.socket | None = None,
    ) -> None:
        self._path = path
        self._bound = listener
        self._on_message = on_message
        self._on_gone = on_gone
        self._admits = may_connect if uid is None else uid.__eq__
        self._limits = limits or ConnectionLimits()
        self._max_held = max_held
        self._senders: dict[Sender, Process] = {}
        self._refused: dict[Sender, Process] = {}
        """Connections above the limits, the oldest first."""
        self._listening = False
        self._out_of_descriptors = False
        self._closed = False
        self.dropped = 0
        """Rejected connections of other users, and invalid messages."""

    @property
    def clients(self) -> int:
        """Connections within the limits."""
        return len(self._senders)

    def senders(self) -> tuple[Sender, ...]:
        """Return the connections within the limits."""
        return tuple(self._senders)

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._memory = MailboxMemory[Sender](
            self._loop, lambda sender: sender.connection.held, self._owner_of, self._end_holder, self._max_held
        )
        self._listener = self._bound or bind_mailbox(self._path)
        self._listen()

    def close(self) -> None:
        """End all connections. The kernel still gets the bytes that were sent, as far as it takes them at once."""
        if self._closed:
            return
        self._closed = True
        self._stop_listening()
        if self._bound is None:
            self._listener.close()
            with contextlib.suppress(PermissionError):  # in a sandbox: the supervisor removes it
                self._path.unlink(missing_ok=True)
        for sender in (*self._senders, *self._refused):
            sender.gone = True
            sender.connection.close()
        self._senders.clear()
        self._refused.clear()
        self._memory.close()

    def send(
        self, sender: Sender, correlation: bytes, header: bytes, payload: Payload = b"", *, credited: bool = False
    ) -> bool:
        """Send one message. Return False, and send nothing, if the peer is gone or its send queue is full.

        A large payload that is not ``bytes`` must stay unchanged until it has been written. A reply without a payload
        may be as long as a payload.

        Args:
            sender: the connection.
            correlation: correlation id of the message.
            header: the encoded message.
            payload: its payload.
            credited: True if the peer granted credit for the message. The credit bounds it, so the queue's limit does
                not apply.
        """
        if len(header) > MAX_HEADER and not payload:
            header, payload = _LONG, header
        return sender.connection.send(correlation, header, payload, credited)

    def end(self, sender: Sender) -> None:
        """End a connection. What was sent leaves first, as far as the kernel takes it."""
        sender.connection.close()
        if sender in self._refused:
            self._on_refused_end(sender)
        elif sender in self._senders:
            self._on_end(sender)

    def answer(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Send the reply to a request. If the sender's queue is full, send ``Overloaded`` instead.

        The reply is short. Without any reply, the sender would wait until its deadline.
        """
        if not self.send(sender, correlation, header, payload) and not sender.gone:
            error = Overloaded(what="bytes of answers that this program has not read", limit=SEND_QUEUE_BYTES)
            self.send(sender, correlation, encode(ErrorReply.of(error)), credited=True)

    # ── accepting connections ────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        if not self._listening and not self._closed:
            self._listening = True
            self._loop.add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._out_of_descriptors = False
                return
            except OSError as error:  # no descriptor or no memory: an immediate retry would only take processor time
                self._stop_listening()
                self._loop.call_later(_ACCEPT_RETRY_SECONDS, self._listen)
                if not self._out_of_descriptors:
                    self._out_of_descriptors = True
                    log.error("%s: connections cannot be accepted: %s. Retrying.", self._path.name, error)
                return
            self._accept_connection(accepted)

    def _accept_connection(self, accepted: socket.socket) -> None:
        pid, uid, _ = CREDENTIALS.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        if not self._admits(uid):
            self.dropped += 1
            log.warning("%s: rejected process %d of user %d", self._path.stem, pid, uid)
            accepted.close()
            return
        accepted.setblocking(False)
        process = process_of(pid)
        self.adopt(accepted, process, Sender(uid, pid, self._identity_of(accepted, process)))

    def adopt(self, accepted: socket.socket, process: Process, sender: Sender, tls: SSLContext | None = None) -> None:
        """Read the messages of a connection from now on, or answer them with ``Overloaded`` above the limits.

        Args:
            accepted: the connection, owned by the mailbox from now on.
            process: who has opened it, for limits and errors.
            sender: what its messages come from.
            tls: encrypts it, if it comes from another machine.
        """
        overload = self._limits.reserve(process)
        if overload is None:
            self._senders[sender] = process
            on_message, on_end = partial(self._on_message, sender), partial(self._on_end, sender)
        else:
            log.warning("%s: rejected a connection: %s", self._path.stem, overload)
            self._refused[sender] = process
            on_message = partial(self._reply_overloaded, sender, overload)
            on_end = partial(self._on_refused_end, sender)
        sender.connection = ZmtpConnection(
            accepted,
            "ROUTER",
            f"{self._path.stem}: process {sender.pid}",
            on_ready=_ignore,
            on_message=on_message,
            on_end=on_end,
            on_invalid=partial(self._on_invalid, sender),
            on_held=partial(self._memory.watch, sender),
            tls=tls,
        )
        sender.connection.start()
        if len(self._refused) > self._limits.refused:
            self._end_refused(next(iter(self._refused)))

    def _identity_of(self, accepted: socket.socket, process: Process) -> str | None:
        """Return ``Sender.identity``. The supervisor connects for identities, from an address that names them."""
        if not self._limits.is_own(process):
            return None
        return identity_label(accepted.getpeername()) if process.pid == self._limits.supervisor else ""

    def _on_end(self, sender: Sender) -> None:
        sender.gone = True
        self._memory.ended(sender)
        process = self._senders.pop(sender, None)
        if process is not None:
            self._limits.release(process)
            self._readmit_refused()
        if self._on_gone is not None:
            self._on_gone(sender)

    # ── connections above the limits ─────────────────────────────────────────────────────────────────

    def _reply_overloaded(
        self, sender: Sender, overload: Overloaded, correlation: bytes, header: bytes, payload: bytes
    ) -> None:
        self.send(sender, correlation, encode(ErrorReply.of(overload)))

    def _on_refused_end(self, sender: Sender) -> None:
        sender.gone = True
        self._memory.ended(sender)
        self._refused.pop(sender, None)

    def _end_refused(self, sender: Sender) -> None:
        self._on_refused_end(sender)
        sender.connection.close()

    def _readmit_refused(self) -> None:
        """End a refused connection that is within the limits now. Its program connects again by itself."""
        for sender, process in self._refused.items():
            if not self._closed and self._limits.has_capacity(process):
                self._end_refused(sender)
                return

    def _owner_of(self, sender: Sender) -> tuple[Process, bool]:
        process = self._senders.get(sender) or self._refused[sender]
        return process, self._limits.is_own(process)

    def _end_holder(self, sender: Sender, what: str, limit: int) -> None:
        """End this connection: all together hold too much, and this one holds most."""
        overload = Overloaded(what=what, limit=limit)
        log.warning("%s: ended a connection: %s", self._path.stem, overload)
        self.send(sender, sender.connection.partial_id, encode(ErrorReply.of(overload)))
        self.end(sender)

    def _on_invalid(self, sender: Sender, frames: list[bytes], reason: str) -> None:
        self.dropped += 1
        answer = encode_invalid_message(frames, reason)
        if answer:
            self.send(sender, frames[0], answer)


def _ignore() -> None:
    """Ignore a new connection: only its first message matters."""
