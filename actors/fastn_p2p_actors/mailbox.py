"""A mailbox: the ROUTER that every actor reads.

What comes in is handed over as ``(sender, id, header, payload)``; frames of another shape are dropped. Who the
sender is comes from the kernel (uid and pid of the process at the other end of the Unix socket), from CURVE
where a mailbox demands it, and never from the routing id, which a peer chooses for itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import zmq

from fastn_p2p_client.errors import BadMessage, P2PError, PayloadTooLarge
from fastn_p2p_client.limits import CORRELATION_ID_MAX, MAX_CLIENTS, MAX_GROUP, MAX_HEADER, MAX_PAYLOAD
from fastn_p2p_client.messages import Failure, encode
from fastn_p2p_client.outbox import RETRY_PAUSE, Outbox
from fastn_p2p_client.sockets import (
    AGAIN,
    MORE,
    NOBLOCK,
    Monitor,
    close_socket,
    endpoint,
    raw_get,
    raw_recv,
    readable,
    router,
)

from .gatekeeper import Gatekeeper, Rule, parse_peer_address

__all__ = ["Mailbox", "Sender"]

_BURST: Final = 256
_FRAMES: Final = 3
_MAX_FRAMES: Final = _FRAMES * MAX_GROUP
_SRCFD: Final = int(zmq.SRCFD)

log = logging.getLogger(__name__)


class Sender:
    """One connection to a mailbox, as the kernel and CURVE describe it. Compares by identity."""

    __slots__ = ("descriptor", "gone", "pid", "role", "route", "state", "uid")

    def __init__(self, route: bytes, descriptor: int, uid: int, pid: int, role: str) -> None:
        self.route = route
        self.descriptor = descriptor
        self.uid = uid
        self.pid = pid
        self.role = role
        """The CURVE role, empty where the mailbox asks for none."""
        self.gone = False
        self.state: object = None
        """For the mailbox's owner: what it knows of this connection."""

    def __repr__(self) -> str:
        return f"<sender pid={self.pid} role={self.role or '-'}>"


OnMessage: TypeAlias = Callable[[Sender, bytes, bytes, bytes], None]


class Mailbox:
    """Bound by ``open`` inside a running loop.

    Args:
        path: the socket; its directory must exist, mode 0700.
        on_message: gets (sender, id, header, payload); must not raise and must not block.
        on_gone: gets each sender whose connection has ended.
        roles: CURVE public key (Z85) → role. When given, only these keys get in; ``server_secret`` goes with it.
        uid: the only user whose processes are listened to.
    """

    def __init__(
        self,
        path: Path,
        on_message: OnMessage,
        *,
        on_gone: Callable[[Sender], None] | None = None,
        server_secret: str | None = None,
        roles: dict[str, str] | None = None,
        uid: int | None = None,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_gone = on_gone
        self._server_secret = server_secret
        self._roles = None if roles is None else {key.encode(): role for key, role in roles.items()}
        self._uid = os.getuid() if uid is None else uid
        self._max_clients = max_clients
        self._senders: dict[bytes, Sender] = {}
        self._by_descriptor: dict[int, Sender] = {}
        self._descriptors: set[int] = set()
        self._full = False
        self._outboxes: dict[Sender, Outbox] = {}
        """Of those to whom something has to be sent."""
        self._turn_soon = False
        self._closed = False
        self.dropped = 0
        """Messages that were not listened to: wrong user, wrong shape."""

    @property
    def clients(self) -> int:
        """Connections that stand."""
        return len(self._descriptors)

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hidden.unlink(missing_ok=True)
        self._domain = Gatekeeper.of_process().add(Rule(self._path.stem, self._uid, self._roles))
        self._socket = router(self._domain, self._server_secret)
        self._monitor = Monitor(self._socket)
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
        Gatekeeper.of_process().remove(self._domain)
        self._path.unlink(missing_ok=True)
        self._hidden.unlink(missing_ok=True)

    def send(
        self, sender: Sender, correlation: bytes, header: bytes, payload: bytes = b"", *, credited: bool = False
    ) -> bool:
        """Send one message; False when the peer is gone or its queue is full (then nothing was sent).

        Args:
            credited: the peer has granted credit for it, which is its own bound: the queue's does not count.
        """
        if sender.gone or self._closed:
            return False
        outbox = self._outboxes.get(sender)
        if outbox is None:
            outbox = self._outboxes[sender] = Outbox(self._socket, sender.route)
        if not outbox.add(correlation, header, payload, credited):
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
    def _hidden(self) -> Path:
        return self._path.with_name(f".{self._path.name}.full")

    def _limit(self) -> None:
        """Keeps libzmq from running out of descriptors, which aborts the process: while there is no room for more
        connections, the socket has another name. (Unbinding would end those that stand.) Whoever wants in tries again.
        """
        full = len(self._descriptors) >= self._max_clients
        if full == self._full:
            return
        there, here = (self._path, self._hidden) if full else (self._hidden, self._path)
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
        for sender, outbox in outboxes.items():
            try:
                if not outbox.flush():
                    self._outboxes[sender] = outbox
            except zmq.ZMQError:
                log.debug("%s: process %d is gone with %d messages", self._path.stem, sender.pid, len(outbox))

    def _drain(self) -> None:
        socket, senders = self._socket, self._senders
        for taken in range(_BURST):
            if self._closed:
                return
            try:
                route = raw_recv(socket, NOBLOCK)
            except AGAIN:
                return
            sender = senders.get(route)
            frames: list[bytes] = []
            first: zmq.Frame | None = None
            if sender is None and raw_get(socket, MORE):
                opening: zmq.Frame = raw_recv(socket, NOBLOCK, False)
                frames.append(opening.bytes)
                first = opening
            while raw_get(socket, MORE):
                frame = raw_recv(socket, NOBLOCK)
                if len(frames) <= _MAX_FRAMES:
                    frames.append(frame)
            if first is not None:
                sender = self._introduce(route, first)
            if sender is None:
                self.dropped += 1
            elif not frames or len(frames) % _FRAMES or len(frames) > _MAX_FRAMES:
                self._refuse(sender, frames, f"a message has {_FRAMES} frames: id, header, payload")
            else:
                for start in range(0, len(frames), _FRAMES):
                    self._take(sender, frames[start : start + _FRAMES])
            if taken == 0 and not readable(socket):  # costs a fifth of the exception that an empty socket raises
                return
        self._loop.call_soon(self._drain)

    def _take(self, sender: Sender, message: list[bytes]) -> None:
        correlation, header, payload = message
        if len(correlation) <= CORRELATION_ID_MAX and len(header) <= MAX_HEADER and len(payload) <= MAX_PAYLOAD:
            try:
                self._on_message(sender, correlation, header, payload)
            except Exception:  # a defect costs this message, not those behind it
                log.exception("%s: a message from process %d", self._path.stem, sender.pid)
        else:
            self._refuse(sender, message, "an id or a header is too long")

    def _introduce(self, route: bytes, frame: zmq.Frame) -> Sender | None:
        """The sender behind a route that was not known, or None when nobody listens to it. Between two messages only.

        The gatekeeper has turned others away already; this looks again, since it costs nothing.
        """
        self._watch()  # the end of an earlier connection with this descriptor comes first
        try:
            peer = parse_peer_address(str(frame.get("Peer-Address")))
            descriptor = int(frame.get(_SRCFD))
            role = str(frame.get("User-Id")) if self._roles is not None else ""
        except (ValueError, zmq.ZMQError):
            return None
        if peer.uid != self._uid:
            return None
        sender = Sender(route, descriptor, peer.uid, peer.pid, role)
        if descriptor in self._descriptors:
            self._senders[route] = self._by_descriptor[descriptor] = sender
        else:
            sender.gone = True  # its last words
        return sender

    def _refuse(self, sender: Sender, frames: list[bytes], reason: str) -> None:
        self.dropped += 1
        if not frames or len(frames[0]) > CORRELATION_ID_MAX:
            return
        error: P2PError = BadMessage(reason=reason)
        if len(frames) == _FRAMES and len(frames[2]) > MAX_PAYLOAD:
            error = PayloadTooLarge(size=len(frames[2]), limit=MAX_PAYLOAD)
        self.send(sender, frames[0], encode(Failure.of(error)))

    def _watch(self) -> None:
        if self._closed:
            return
        for event in self._monitor.drain():
            if event.kind == zmq.EVENT_ACCEPTED:
                self._descriptors.add(event.value)
            elif event.value in self._descriptors:
                self._descriptors.discard(event.value)
                sender = self._by_descriptor.pop(event.value, None)
                if sender is not None:
                    self._lost(sender)
        self._limit()

    def _lost(self, sender: Sender) -> None:
        self._drain()  # what it said before it ended still counts
        sender.gone = True
        self._outboxes.pop(sender, None)
        self._senders.pop(sender.route, None)
        if self._on_gone is not None:
            self._on_gone(sender)
