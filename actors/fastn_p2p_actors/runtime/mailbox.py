"""A mailbox: the Unix socket that every actor reads.

It speaks ZMTP 3.1 as a ROUTER does, so that any ZeroMQ library's DEALER can write to it. What comes in is handed over
as ``(sender, id, header, payload)``; frames of another shape are refused. Who the sender is comes from the kernel: uid
and pid of the process at the other end. The vault's mailbox asks for keys as well: see ``mailbox``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import (
    ErrorReply,
    LongReply,
    encode,
)
from fastn_p2p_client.ipc.transport.native.codec import (
    FRAMES,
    Payload,
)
from fastn_p2p_client.ipc.transport.native.connection import ZmtpConnection
from fastn_p2p_client.limits import BACKLOG, CORRELATION_ID_MAX, MAX_HEADER, MAX_PAYLOAD, SEND_QUEUE_BYTES

from .connection_limits import ConnectionLimits, Process, process_of
from .mailbox_memory import MAX_HELD, MailboxMemory

__all__ = ["CREDENTIALS", "Mailbox", "Sender", "encode_invalid_message"]

_LONG: Final = encode(LongReply())
CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""
_ACCEPTED_AT_ONCE: Final = 64
"""Connections let in before other work of the loop gets a turn."""
_ROOM_PAUSE: Final = 0.1
"""Seconds until a connection is accepted again after the kernel had no descriptor for one."""

log = logging.getLogger(__name__)


class Sender:
    """One connection to a mailbox, as the kernel describes it. Compares by identity."""

    __slots__ = ("answered_at", "connection", "gone", "pid", "state", "uid")

    def __init__(self, uid: int, pid: int) -> None:
        self.uid = uid
        self.pid = pid
        self.connection: ZmtpConnection
        self.gone = False
        self.answered_at = 0.0
        """For the mailbox's owner: when it has last answered a request (monotonic seconds)."""
        self.state: object = None
        """For the mailbox's owner: what it knows of this connection."""

    @property
    def backlog(self) -> int:
        """Bytes that were sent to it and that the kernel has not taken yet."""
        return self.connection.unsent_bytes

    @property
    def is_behind(self) -> bool:
        """Return whether it does not read: what is sent to it next waits in this process."""
        return self.connection.is_behind

    def __repr__(self) -> str:
        return f"<sender pid={self.pid}>"


OnMessage: TypeAlias = Callable[[Sender, bytes, bytes, bytes], None]


def encode_invalid_message(frames: list[bytes], reason: str) -> bytes:
    """What answers frames that are no message, under the first of them as id; empty if that cannot be an id."""
    if not frames or len(frames[0]) > CORRELATION_ID_MAX:
        return b""
    error: P2PError = BadMessage(reason=reason)
    if len(frames) == FRAMES and len(frames[2]) > MAX_PAYLOAD:
        error = PayloadTooLarge(size=len(frames[2]), limit=MAX_PAYLOAD)
    return encode(ErrorReply.of(error))


class Mailbox:
    """Bound by ``open`` inside a running loop.

    Args:
        path: the socket; its directory must exist, mode 0700. What is there already is replaced.
        on_message: gets (sender, id, header, payload); must not raise and must not block.
        on_gone: gets each sender whose connection has ended, after its last message.
        uid: the only user whose processes are listened to.
        limits: of the connections that stand; what is sent over further ones is answered with ``Overloaded``.
        max_held: bytes that all connections may hold.
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
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_gone = on_gone
        self._uid = os.getuid() if uid is None else uid
        self._limits = limits or ConnectionLimits()
        self._max_held = max_held
        self._senders: dict[Sender, Process] = {}
        self._refused: dict[Sender, Process] = {}
        """Connections above the limits, the oldest first."""
        self._listening = False
        self._no_room = False
        self._closed = False
        self.dropped = 0
        """What was not listened to: connections of other users, messages of another shape."""

    @property
    def clients(self) -> int:
        """Connections that have a place."""
        return len(self._senders)

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._memory = MailboxMemory[Sender](
            self._loop, lambda sender: sender.connection.held, self._owner_of, self._end_holder, self._max_held
        )
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)  # nobody can connect before it listens
            self._listener.listen(BACKLOG)
        except OSError:
            self._listener.close()
            raise
        self._listen()

    def close(self) -> None:
        """Ends all connections. What was sent is still given to the kernel as far as it takes it at once."""
        if self._closed:
            return
        self._closed = True
        self._stop_listening()
        self._listener.close()
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
        """Send one message; False when the peer is gone or too much waits for it (then nothing was sent).

        A large payload that is no ``bytes`` must stay as it is until it has left. An answer without a payload may be as
        long as one.

        Args:
            credited: the peer has granted credit for it, which is its own bound: the queue's does not count.
        """
        if len(header) > MAX_HEADER and not payload:
            header, payload = _LONG, header
        return sender.connection.send(correlation, header, payload, credited)

    def answer(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Send the answer to a request. Where too much waits for the sender already, ``Overloaded`` goes instead, which
        is short: without any answer, the sender would wait until its deadline."""
        if not self.send(sender, correlation, header, payload) and not sender.gone:
            error = Overloaded(what="bytes of answers that this program has not read", limit=SEND_QUEUE_BYTES)
            self.send(sender, correlation, encode(ErrorReply.of(error)), credited=True)

    # ── letting in ───────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        if not self._listening and not self._closed:
            self._listening = True
            self._loop.add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._no_room = False
                return
            except OSError as error:  # no descriptor, no memory: trying again at once would only take the processor
                self._stop_listening()
                self._loop.call_later(_ROOM_PAUSE, self._listen)
                if not self._no_room:
                    self._no_room = True
                    log.error("%s: nobody is let in at the moment: %s", self._path.name, error)
                return
            self._accept_connection(accepted)

    def _accept_connection(self, accepted: socket.socket) -> None:
        pid, uid, _ = CREDENTIALS.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        if uid != self._uid:
            self.dropped += 1
            log.warning("%s: process %d of user %d turned away", self._path.stem, pid, uid)
            accepted.close()
            return
        accepted.setblocking(False)
        sender, process = Sender(uid, pid), process_of(pid)
        overload = self._limits.reserve(process)
        if overload is None:
            self._senders[sender] = process
            on_message, on_end = partial(self._on_message, sender), partial(self._lost, sender)
        else:
            log.warning("%s: a connection is refused: %s", self._path.stem, overload)
            self._refused[sender] = process
            on_message, on_end = partial(self._tell, sender, overload), partial(self._lost_refused, sender)
        sender.connection = ZmtpConnection(
            accepted,
            "ROUTER",
            f"{self._path.stem}: process {pid}",
            on_ready=_ignore,
            on_message=on_message,
            on_end=on_end,
            on_misfit=partial(self._refuse, sender),
            on_held=partial(self._memory.watch, sender),
        )
        sender.connection.start()
        if len(self._refused) > self._limits.refused:
            self._end_refused(next(iter(self._refused)))

    def _lost(self, sender: Sender) -> None:
        sender.gone = True
        self._memory.ended(sender)
        process = self._senders.pop(sender, None)
        if process is not None:
            self._limits.release(process)
            self._make_one_come_again()
        if self._on_gone is not None:
            self._on_gone(sender)

    # ── above the limits ─────────────────────────────────────────────────────────────────────────

    def _tell(self, sender: Sender, overload: Overloaded, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.send(sender, correlation, encode(ErrorReply.of(overload)))

    def _lost_refused(self, sender: Sender) -> None:
        sender.gone = True
        self._memory.ended(sender)
        self._refused.pop(sender, None)

    def _end_refused(self, sender: Sender) -> None:
        self._lost_refused(sender)
        sender.connection.close()

    def _make_one_come_again(self) -> None:
        """A place is free: end a refused connection that could have it. Its program connects again by itself."""
        for sender, process in self._refused.items():
            if not self._closed and self._limits.has_place(process):
                self._end_refused(sender)
                return

    def _owner_of(self, sender: Sender) -> tuple[Process, bool]:
        process = self._senders.get(sender) or self._refused[sender]
        return process, self._limits.is_own(process)

    def _end_holder(self, sender: Sender, what: str, limit: int) -> None:
        """All connections together hold too much, and this one most."""
        overload = Overloaded(what=what, limit=limit)
        log.warning("%s: a connection is ended: %s", self._path.stem, overload)
        self.send(sender, sender.connection.partial_id, encode(ErrorReply.of(overload)))
        sender.connection.close()
        if sender in self._refused:
            self._lost_refused(sender)
        else:
            self._lost(sender)

    def _refuse(self, sender: Sender, frames: list[bytes], reason: str) -> None:
        self.dropped += 1
        answer = encode_invalid_message(frames, reason)
        if answer:
            self.send(sender, frames[0], answer)


def _ignore() -> None:
    """Nobody needs to know that somebody is there before it says something."""
