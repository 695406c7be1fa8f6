"""Socket of the vault's owner: one request on each connection, with the descriptors that carry its passphrases.

The kernel says which process has connected. It must be one of the user's, and no descendant of the daemon: protocol
code can neither unlock the vault nor lock it, and so it cannot try passphrases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, Forbidden, InternalError, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE, ErrorReply, encode

from ..runtime.connection_limits import process_of
from ..runtime.mailbox import CREDENTIALS
from .owner_messages import MAX_PACKET, OwnerReply, OwnerRequest

MAX_CONNECTIONS: Final = 8
"""Connections at the same time. A program that holds them all keeps the owner out, which it could do by other means."""
MAX_DESCRIPTORS: Final = 3
"""Descriptors of one request."""
REQUEST_SECONDS: Final = 10.0
"""Seconds in which the request must arrive."""
_MOST_OPEN: Final = 8 * MAX_CONNECTIONS
"""Connections that are open, with those that only wait for an error reply. Further ones are closed at once."""
_DEEPEST: Final = 1024
"""Generations of processes that are followed."""

OnRequest = Callable[[OwnerRequest, list[int]], Awaitable[OwnerReply]]
_decoder: Final[msgspec.msgpack.Decoder[OwnerRequest]] = msgspec.msgpack.Decoder(OwnerRequest)
log = logging.getLogger(__name__)


def descends_from(pid: int, ancestors: frozenset[int]) -> bool:
    """Return whether a process is one of the ancestors or descends from one, or has ended."""
    for _ in range(_DEEPEST):
        if pid in ancestors:
            return True
        process = process_of(pid)
        if pid <= 1 or not process.started:
            return pid != 1
        if process.parent == 0:
            return False  # its parent is outside of this container
        pid = process.parent
    return True


class OwnerSocket:
    """Server of the owner's socket. ``open`` binds it inside a running event loop.

    Args:
        path: the socket. Its directory must exist with mode 0700.
        on_request: carries out a request, and returns the reply or raises P2PError. It owns no descriptor.
        ancestors: processes whose descendants may not connect.
        listener: socket that listens at ``path`` already, to which only root may connect.
    """

    def __init__(
        self, path: Path, on_request: OnRequest, ancestors: frozenset[int], listener: socket.socket | None = None
    ) -> None:
        self._path = path
        self._on_request = on_request
        self._ancestors = ancestors
        self._listener = listener
        self._owner = os.getuid() if listener is None else 0
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Bind the socket, and accept connections."""
        self._loop = asyncio.get_running_loop()
        self._socket = self._listener or self._bind()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _bind(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        previous = os.umask(0o177)
        try:
            made.bind(str(self._path))
        finally:
            os.umask(previous)
        made.listen(MAX_CONNECTIONS)
        return made

    def close(self) -> None:
        """End every connection."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._listener is None:
            self._path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        if len(self._tasks) >= _MOST_OPEN:
            connection.close()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                reply = await self._answer(connection)
            except P2PError as error:
                reply = ErrorReply.of(error)
            except (OSError, EOFError):
                return  # the program has gone
            except Exception as error:
                log.exception("a request of the owner failed")
                reply = ErrorReply.of(InternalError(reason=f"{type(error).__name__} in the vault"))
            with contextlib.suppress(OSError):
                connection.send(encode(reply))

    async def _answer(self, connection: socket.socket) -> OwnerReply:
        pid, uid, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        is_owner = uid == self._owner and not descends_from(pid, self._ancestors)
        packet, descriptors = await self._receive(
            connection
        )  # first: closing with unread bytes would discard the reply
        try:
            if not is_owner:
                log.warning("process %d of user %d may not use the socket of the vault's owner", pid, uid)
                raise Forbidden(role="a process of the daemon, or of another user", request="the vault's owner socket")
            if len(self._tasks) > MAX_CONNECTIONS:
                raise Overloaded(what="connections to the vault", limit=MAX_CONNECTIONS)
            return await self._on_request(_decoder.decode(packet), descriptors)
        except UNDECODABLE as error:
            raise BadMessage(reason=str(error)) from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _receive(self, connection: socket.socket) -> tuple[bytes, list[int]]:
        """Return a packet and its descriptors. Raises EOFError if the program is gone or sends nothing in time."""
        readable: asyncio.Future[None] = self._loop.create_future()

        def on_readable() -> None:
            if not readable.done():
                readable.set_result(None)

        self._loop.add_reader(connection.fileno(), on_readable)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await readable
        except TimeoutError:
            raise EOFError from None
        finally:
            self._loop.remove_reader(connection.fileno())
        packet, descriptors, flags, _ = socket.recv_fds(
            connection, MAX_PACKET, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            raise EOFError
        return packet, descriptors
