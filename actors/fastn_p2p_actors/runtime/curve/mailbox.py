"""Mailbox that requires CURVE keys: a libzmq ROUTER, read by the vault.

It passes each message on as ``(sender, correlation id, header, payload)`` and drops frames of another shape. The kernel
(uid and pid of the connected process) and CURVE say who the sender is. The routing id does not, because a peer chooses
its own.
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

from fastn_p2p_client.ipc.transport.native.codec import FRAMES, MAX_FRAMES, invalid_reason
from fastn_p2p_client.ipc.transport.pyzmq.send_queue import RETRY_DELAY, SendQueue
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

from ..connection_limits import ConnectionLimits, Process, process_of
from ..mailbox import CREDENTIALS, encode_invalid_message
from ..separate_users import may_connect
from .zap_authenticator import AccessRule, ZapAuthenticator, parse_peer_address

_BURST: Final = 256
"""Messages read before other work of the event loop runs."""
_SRCFD: Final = int(zmq.SRCFD)

log = logging.getLogger(__name__)


class CurveSender:
    """Connection to a mailbox, as the kernel and CURVE describe it. Compares by identity."""

    __slots__ = ("gone", "pid", "role", "route")

    def __init__(self, route: bytes, pid: int, role: str) -> None:
        self.route = route
        self.pid = pid
        self.role = role
        """Role of the sender's key."""
        self.gone = False

    def __repr__(self) -> str:
        return f"<caller pid={self.pid} role={self.role}>"


OnMessage: TypeAlias = Callable[[CurveSender, bytes, bytes, bytes], None]


class CurveMailbox:
    """Mailbox with CURVE. ``open`` binds it inside a running event loop.

    Args:
        path: the socket. Its directory must exist with mode 0700.
        on_message: gets (sender, correlation id, header, payload). It must not raise or block.
        server_secret: the mailbox's own CURVE key (Z85).
        roles: role by CURVE public key (Z85). Other keys are rejected.
        uid: the user whose processes may connect; by default those of ``may_connect``.
        max_clients: open connections. Further processes wait until some have ended. Programs, none of which has a key,
            may have half of them.
        per_program: connections of one process that is not the daemon's. Further ones end at once.
        is_own: return whether a process belongs to the daemon, given its parent's pid.
        listener: socket that listens at ``path`` already. Then nothing in its directory is changed.
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
        listener: socket.socket | None = None,
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._server_secret = server_secret
        self._roles = {key.encode(): role for key, role in roles.items()}
        self._admits = may_connect if uid is None else uid.__eq__
        self._listener = listener
        self._max_clients = max_clients
        self._callers: dict[bytes, CurveSender] = {}
        self._by_descriptor: dict[int, CurveSender] = {}
        self._descriptors: set[int] = set()
        self._limits = ConnectionLimits(per_program, max_clients // 2, is_own)
        self._processes: dict[int, Process] = {}
        """Processes by descriptor, of the connections that were counted."""
        self._full = False
        self._queues: dict[CurveSender, SendQueue] = {}
        """Send queues that are not empty."""
        self._flush_scheduled = False
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._listener is None:
            self._full_path.unlink(missing_ok=True)
        self._domain = ZapAuthenticator.of_process().add(AccessRule(self._path.stem, self._admits, self._roles))
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
        if self._listener is None:
            self._path.unlink(missing_ok=True)
            self._full_path.unlink(missing_ok=True)

    def send(self, caller: CurveSender, correlation: bytes, header: bytes, payload: bytes = b"") -> bool:
        """Send one message. Return False, and send nothing, if the peer is gone or its queue is full."""
        if caller.gone or self._closed:
            return False
        queue = self._queues.get(caller)
        if queue is None:
            queue = self._queues[caller] = SendQueue(self._socket, caller.route)
        if not queue.add(correlation, header, payload):
            return False
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_and_read)
        return True

    def _bind(self) -> None:
        if self._listener is not None:
            self._socket.set(zmq.USE_FD, self._listener.detach())  # libzmq closes it
        previous = os.umask(0o177)
        try:
            self._socket.bind(endpoint(self._path))
        finally:
            os.umask(previous)

    @property
    def _full_path(self) -> Path:
        return self._path.with_name(f".{self._path.name}.full")

    def _apply_limit(self) -> None:
        """Rename the socket while ``max_clients`` connections are open, so that no further process can connect.

        Without this, libzmq runs out of descriptors and aborts the process. Unbinding the socket would end the open
        connections. A process that cannot connect tries again.
        """
        full = len(self._descriptors) >= self._max_clients
        if full == self._full or self._listener is not None:  # to such a one no program may connect
            return
        there, here = (self._path, self._full_path) if full else (self._full_path, self._path)
        try:
            there.rename(here)
        except OSError as error:
            log.error("%s cannot be renamed: %s. Check the permissions of its directory.", there, error)
        self._full = full
        if full:
            count = len(self._descriptors)
            log.warning("%s has %d connections, the limit. Further ones wait until some end.", self._path.name, count)

    def _flush_and_read(self) -> None:
        """Flush the messages of this loop iteration, then check the socket again.

        Its descriptor is edge-triggered: a message can be waiting without another signal.
        """
        self._flush_scheduled = False
        if self._closed:
            return
        self._flush()
        if self._queues:
            self._flush_scheduled = True
            self._loop.call_later(RETRY_DELAY, self._flush_and_read)
        if readable(self._socket):
            self._drain()

    def _flush(self) -> None:
        """Send as much as possible. The queues that remain belong to peers that take no more at the moment."""
        queues, self._queues = self._queues, {}
        for caller, queue in queues.items():
            try:
                if not queue.flush():
                    self._queues[caller] = queue
            except zmq.ZMQError:
                log.debug("%s: process %d is gone, %d messages were not sent", self._path.stem, caller.pid, len(queue))

    def _drain(self) -> None:
        socket, callers = self._socket, self._callers
        for count in range(_BURST):
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
                self._on_frames(caller, frames)
            if count == 0 and not readable(socket):  # costs a fifth of the exception that an empty socket raises
                return
        self._loop.call_soon(self._drain)

    def _on_frames(self, caller: CurveSender, frames: list[bytes]) -> None:
        reason = invalid_reason(frames)
        if not reason and len(frames) > FRAMES:
            for start in range(0, len(frames), FRAMES):
                self._on_frames(caller, frames[start : start + FRAMES])
        elif reason:
            answer = encode_invalid_message(frames, reason)
            if answer:
                self.send(caller, frames[0], answer)
        else:
            try:
                self._on_message(caller, *frames)
            except Exception:  # a defect costs this message, not those behind it
                log.exception("%s: a message of process %d failed", self._path.stem, caller.pid)

    def _identify_sender(self, route: bytes, frame: zmq.Frame) -> CurveSender | None:
        """Return the sender behind a new route, or None if it is rejected. Call it between two messages only.

        The ZAP authenticator has rejected other senders already. This checks again, because a check costs nothing.
        """
        self._watch()  # the end of an earlier connection with this descriptor comes first
        try:
            peer = parse_peer_address(str(frame.get("Peer-Address")))
            descriptor = int(frame.get(_SRCFD))
            role = str(frame.get("User-Id"))
        except (ValueError, zmq.ZMQError):
            return None
        if not self._admits(peer.uid):
            return None
        caller = CurveSender(route, peer.pid, role)
        if descriptor in self._descriptors:
            self._callers[route] = self._by_descriptor[descriptor] = caller
        else:
            caller.gone = True  # its last message: the connection has ended
        return caller

    def _watch(self) -> None:
        if self._closed:
            return
        for event in self._monitor.drain():
            if event.kind == zmq.EVENT_ACCEPTED:
                self._descriptors.add(event.value)
                self._count_connection(event.value)
            elif event.value in self._descriptors:
                self._descriptors.discard(event.value)
                self._release(event.value)
                caller = self._by_descriptor.pop(event.value, None)
                if caller is not None:
                    self._on_end(caller)
        self._apply_limit()

    def _count_connection(self, descriptor: int) -> None:
        """Count an accepted connection for its process, or end it if the process is at its limit.

        libzmq sees the end as if the peer had closed the connection.
        """
        try:
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
                process = process_of(CREDENTIALS.unpack(credentials)[0])
                overload = self._limits.reserve(process)
                if overload is not None:
                    log.warning("%s: ended a connection: %s", self._path.stem, overload)
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

    def _on_end(self, caller: CurveSender) -> None:
        self._drain()  # messages sent before the end still count
        caller.gone = True
        self._queues.pop(caller, None)
        self._callers.pop(caller.route, None)
