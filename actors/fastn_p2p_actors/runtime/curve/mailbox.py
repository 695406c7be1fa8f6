"""A mailbox that asks for CURVE keys: a libzmq ROUTER, which the vault reads.

What comes in is handed over as ``(caller, id, header, payload)``; frames of another shape are dropped. Who the caller
is comes from the kernel (uid and pid of the process at the other end of the Unix socket) and from CURVE, and never
from the routing id, which a peer chooses for itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import zmq

from fastn_p2p_client.ipc.transport.native.codec import (
    FRAMES,
    MAX_FRAMES,
    invalid_reason,
)
from fastn_p2p_client.ipc.transport.pyzmq.send_queue import (
    RETRY_PAUSE,
    SendQueue,
)
from fastn_p2p_client.ipc.transport.pyzmq.sockets import (
    AGAIN,
    MORE,
    NOBLOCK,
    SocketMonitor,
    close_socket,
    endpoint,
    raw_get,
    raw_recv,
    readable,
    router,
)
from fastn_p2p_client.limits import MAX_CLIENTS, MAX_CLIENTS_PER_PROGRAM

from ..connection_limits import (
    ConnectionLimits,
    Process,
    process_of,
)
from ..mailbox import (
    CREDENTIALS,
    encode_invalid_message,
)
from .zap_authenticator import (
    AccessRule,
    ZapAuthenticator,
    parse_peer_address,
)

__all__ = ["CurveMailbox", "CurveSender"]

_BURST: Final = 256
_SRCFD: Final = int(zmq.SRCFD)

log = logging.getLogger(__name__)


class CurveSender:
    """One connection to a mailbox, as the kernel and CURVE describe it. Compares by identity."""

    __slots__ = ("gone", "pid", "role", "route")

    def __init__(self, route: bytes, pid: int, role: str) -> None:
        self.route = route
        self.pid = pid
        self.role = role
        """What the key stands for."""
        self.gone = False

    def __repr__(self) -> str:
        return f"<caller pid={self.pid} role={self.role}>"


OnMessage: TypeAlias = Callable[[CurveSender, bytes, bytes, bytes], None]


class CurveMailbox:
    """Bound by ``open`` inside a running loop.

    Args:
        path: the socket; its directory must exist, mode 0700.
        on_message: gets (caller, id, header, payload); must not raise and must not block.
        server_secret: the mailbox's own CURVE key (Z85).
        roles: CURVE public key (Z85) → role. Nobody else gets in.
        uid: the only user whose processes are listened to.
        max_clients: connections at a time; whoever comes then waits until some have ended. Programs, none of which has
            a key, have half of them.
        per_program: connections of one process that is not the daemon's; further ones end at once.
        is_own: whether a process belongs to the daemon, given its parent's pid.
    """

    def __init__(
        self,
        path: Path,
        on_message: OnMessage,
        *,
        server_secret: str,
        roles: dict[str, str],
        uid: int | None = None,
        max_clients: int = MAX_CLIENTS // 8,
        per_program: int = MAX_CLIENTS_PER_PROGRAM,
        is_own: Callable[[int], bool] = lambda parent: False,
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._server_secret = server_secret
        self._roles = {key.encode(): role for key, role in roles.items()}
        self._uid = os.getuid() if uid is None else uid
        self._max_clients = max_clients
        self._callers: dict[bytes, CurveSender] = {}
        self._by_descriptor: dict[int, CurveSender] = {}
        self._descriptors: set[int] = set()
        self._limits = ConnectionLimits(per_program, max_clients // 2, is_own)
        self._processes: dict[int, Process] = {}
        """Processes behind the descriptors that have a place."""
        self._full = False
        self._outboxes: dict[CurveSender, SendQueue] = {}
        """Of those to whom something has to be sent."""
        self._turn_soon = False
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._full_path.unlink(missing_ok=True)
        self._domain = ZapAuthenticator.of_process().add(AccessRule(self._path.stem, self._uid, self._roles))
        self._socket = router(self._domain, self._server_secret)
        self._monitor = SocketMonitor(self._socket)
        self._bind()
        self._descriptor = int(self._socket.fileno())
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.add_reader(self._monitor.fileno(), self._watch)
        self._loop.call_soon(self._watch)
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_reader(self._monitor.fileno())
        self._monitor.close()
        close_socket(self._socket)
        ZapAuthenticator.of_process().remove(self._domain)
        self._path.unlink(missing_ok=True)
        self._full_path.unlink(missing_ok=True)

    def send(self, caller: CurveSender, correlation: bytes, header: bytes, payload: bytes = b"") -> bool:
        """Send one message; False when the peer is gone or its queue is full (then nothing was sent)."""
        if caller.gone or self._closed:
            return False
        outbox = self._outboxes.get(caller)
        if outbox is None:
            outbox = self._outboxes[caller] = SendQueue(self._socket, caller.route)
        if not outbox.add(correlation, header, payload):
            return False
        if not self._turn_soon:
            self._turn_soon = True
            self._loop.call_soon(self._turn)
        return True

    def _bind(self) -> None:
        previous = os.umask(0o177)
        try:
            self._socket.bind(endpoint(self._path))
        finally:
            os.umask(previous)

    @property
    def _full_path(self) -> Path:
        return self._path.with_name(f".{self._path.name}.full")

    def _limit(self) -> None:
        """Keeps libzmq from running out of descriptors, which aborts the process: while there is no room for more
        connections, the socket has another name. (Unbinding would end those that stand.) Whoever wants in tries again.
        """
        full = len(self._descriptors) >= self._max_clients
        if full == self._full:
            return
        there, here = (self._path, self._full_path) if full else (self._full_path, self._path)
        try:
            there.rename(here)
        except OSError as error:
            log.error("%s cannot be renamed: %s", there, error)
        self._full = full
        if full:
            log.warning("%d connections on %s: no more until some end", len(self._descriptors), self._path.name)

    def _turn(self) -> None:
        """Send what this turn of the loop has gathered, and look at the socket again, as its descriptor demands."""
        self._turn_soon = False
        if self._closed:
            return
        self._flush()
        if self._outboxes:
            self._turn_soon = True
            self._loop.call_later(RETRY_PAUSE, self._turn)
        if readable(self._socket):
            self._drain()

    def _flush(self) -> None:
        """Send what can be sent; outboxes that remain are those of peers that take no more at the moment."""
        outboxes, self._outboxes = self._outboxes, {}
        for caller, outbox in outboxes.items():
            try:
                if not outbox.flush():
                    self._outboxes[caller] = outbox
            except zmq.ZMQError:
                log.debug("%s: process %d is gone with %d messages", self._path.stem, caller.pid, len(outbox))

    def _drain(self) -> None:
        socket, callers = self._socket, self._callers
        for taken in range(_BURST):
            if self._closed:
                return
            try:
                route = raw_recv(socket, NOBLOCK)
            except AGAIN:
                return
            caller = callers.get(route)
            frames: list[bytes] = []
            first: zmq.Frame | None = None
            if caller is None and raw_get(socket, MORE):
                opening: zmq.Frame = raw_recv(socket, NOBLOCK, False)
                frames.append(opening.bytes)
                first = opening
            while raw_get(socket, MORE):
                frame = raw_recv(socket, NOBLOCK)
                if len(frames) <= MAX_FRAMES:
                    frames.append(frame)
            if first is not None:
                caller = self._identify_sender(route, first)
            if caller is not None:
                self._take(caller, frames)
            if taken == 0 and not readable(socket):  # costs a fifth of the exception that an empty socket raises
                return
        self._loop.call_soon(self._drain)

    def _take(self, caller: CurveSender, frames: list[bytes]) -> None:
        reason = invalid_reason(frames)
        if not reason and len(frames) > FRAMES:
            for start in range(0, len(frames), FRAMES):
                self._take(caller, frames[start : start + FRAMES])
        elif reason:
            answer = encode_invalid_message(frames, reason)
            if answer:
                self.send(caller, frames[0], answer)
        else:
            try:
                self._on_message(caller, *frames)
            except Exception:  # a defect costs this message, not those behind it
                log.exception("%s: a message from process %d", self._path.stem, caller.pid)

    def _identify_sender(self, route: bytes, frame: zmq.Frame) -> CurveSender | None:
        """The caller behind a route that was not known, or None when nobody listens to it. Between two messages only.

        The gatekeeper has turned others away already; this looks again, since it costs nothing.
        """
        self._watch()  # the end of an earlier connection with this descriptor comes first
        try:
            peer = parse_peer_address(str(frame.get("Peer-Address")))
            descriptor = int(frame.get(_SRCFD))
            role = str(frame.get("User-Id"))
        except (ValueError, zmq.ZMQError):
            return None
        if peer.uid != self._uid:
            return None
        caller = CurveSender(route, peer.pid, role)
        if descriptor in self._descriptors:
            self._callers[route] = self._by_descriptor[descriptor] = caller
        else:
            caller.gone = True  # its last words
        return caller

    def _watch(self) -> None:
        if self._closed:
            return
        for event in self._monitor.drain():
            if event.kind == zmq.EVENT_ACCEPTED:
                self._descriptors.add(event.value)
                self._count(event.value)
            elif event.value in self._descriptors:
                self._descriptors.discard(event.value)
                self._release(event.value)
                caller = self._by_descriptor.pop(event.value, None)
                if caller is not None:
                    self._lost(caller)
        self._limit()

    def _count(self, descriptor: int) -> None:
        """A connection was accepted: it takes a place of its process, or ends. libzmq, which has accepted it, learns it
        as if the other side had ended it."""
        try:
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
                process = process_of(CREDENTIALS.unpack(credentials)[0])
                overload = self._limits.reserve(process)
                if overload is not None:
                    log.warning("%s: a connection is ended: %s", self._path.stem, overload)
                    connection.shutdown(socket.SHUT_RDWR)
                    return
        except OSError:
            return  # it has ended already
        self._release(descriptor)
        self._processes[descriptor] = process

    def _release(self, descriptor: int) -> None:
        process = self._processes.pop(descriptor, None)
        if process is not None:
            self._limits.release(process)

    def _lost(self, caller: CurveSender) -> None:
        self._drain()  # what it said before it ended still counts
        caller.gone = True
        self._outboxes.pop(caller, None)
        self._callers.pop(caller.route, None)
