"""``CurveConnection``: the transport of the vault's clients, with CURVE on the event loop.

libzmq makes its sockets itself, and the network process may not make Unix sockets: the supervisor connects for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from zmq.utils import z85

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.transport.base import ReconnectingTransport, connection_lost
from fastn_p2p_client.ipc.transport.native.codec import (
    COMMAND,
    FRAMES,
    LONG,
    MAJOR,
    MAX_FRAMES,
    SIGNATURE,
    Payload,
    invalid_reason,
    socket_properties,
)
from fastn_p2p_client.ipc.unix_sockets import check_listener, connect_unix
from fastn_p2p_client.limits import HANDSHAKE_IVL_MS, MAX_MESSAGE, SEND_QUEUE_BYTES

from ...credentials.curve_client import OVERHEAD, CurveClient, CurveFailed
from ..specs import VaultAccess

_MECHANISM: Final = b"CURVE".ljust(20, b"\0")
_GREETING: Final = SIGNATURE + bytes([MAJOR, 1]) + _MECHANISM + bytes(32)
_MAX_FRAME: Final = MAX_MESSAGE + OVERHEAD
_BUFFER: Final = 256 * 1024
"""Bytes that wait to be decoded before the socket is read no more."""

log = logging.getLogger(__name__)


def vault_channel(mailbox: Path, access: VaultAccess) -> RequestChannel:
    """Return a channel to the vault with the keys of one role."""
    return RequestChannel(mailbox, "vault", connection=partial(CurveConnection, access))


class CurveConnection(ReconnectingTransport):
    """Connections to a CURVE mailbox, one after the other.

    Args:
        access: own keys, and the public key of the mailbox.
        find: returns the path of the mailbox's socket, before each attempt. Raises P2PError if the path is not safe.
        callbacks: of ``ReconnectingTransport``.
    """

    _curve: CurveClient | None = None
    """Keys of the present connection, once its handshake is complete."""
    _writer: asyncio.StreamWriter | None = None
    """Stream of the present connection."""
    _task: asyncio.Task[None] | None = None

    def __init__(self, access: VaultAccess, find: Callable[[], Path], **callbacks: Any) -> None:
        super().__init__(find, **callbacks)
        self._keys = [z85.decode(key) for key in (access.server_public, access.public, access.secret)]

    def close(self) -> None:
        if self._closed:
            return
        super().close()
        self._curve = None
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()
            if self._writer is not None:
                self._writer.close()

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message; return False if the queue is full.

        A message that is sent while the connection ends is lost with it.
        """
        curve, writer = self._curve, self._writer
        if curve is None or writer is None or writer.transport.is_closing():
            return True
        if not credited and writer.transport.get_write_buffer_size() > SEND_QUEUE_BYTES:
            return False
        frames = (correlation, header, bytes(payload))
        writer.write(b"".join(_frame(0, curve.seal(each, each is not frames[-1])) for each in frames))
        return True

    def cork(self) -> None:
        """Do nothing: a message leaves at once."""

    async def drain(self) -> None:
        """Wait until the kernel has taken everything that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        if self._writer is None or self._curve is None:
            raise connection_lost()
        try:
            await self._writer.drain()
        except OSError:
            raise connection_lost() from None

    def _connect(self) -> None:
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        """Make one attempt, and communicate until the connection ends."""
        try:
            path = self._find()
            sock = await connect_unix(path)
            try:
                check_listener(sock, path)
            except BaseException:
                sock.close()
                raise
            await self._communicate(sock)
        except P2PError as error:
            self._on_unsafe(error)
        except (OSError, EOFError, TimeoutError, CurveFailed) as error:
            log.debug("the vault's mailbox: %s", error)
            self._on_failed_attempt()

    async def _communicate(self, sock: socket.socket) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_BUFFER)
        try:
            async with asyncio.timeout(HANDSHAKE_IVL_MS / 1000):
                curve = await self._handshake(reader, self._writer)
            self._curve = curve
            self._on_ready()
            await self._receive(reader, curve)
        finally:
            self._writer.close()
            self._curve = self._writer = None
            self._on_end()

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> CurveClient:
        curve = CurveClient(*self._keys)
        _write(writer, _GREETING + _frame(COMMAND, curve.hello()))
        greeting = await reader.readexactly(len(_GREETING))
        if greeting[:1] + greeting[9:11] != b"\xff\x7f" + bytes([MAJOR]) or greeting[12:32] != _MECHANISM:
            raise CurveFailed("no greeting with CURVE")
        welcome = await _read_frame(reader)
        _write(writer, _frame(COMMAND, curve.initiate(welcome, socket_properties("DEALER"))))
        curve.finish(await _read_frame(reader))
        return curve

    async def _receive(self, reader: asyncio.StreamReader, curve: CurveClient) -> None:
        frames: list[bytes] = []
        while not self._closed:
            content, more = curve.open(await _read_frame(reader))
            frames.append(content)
            if len(frames) > MAX_FRAMES:
                raise CurveFailed("a message of too many frames")
            if not more:
                self._deliver(frames)
                frames = []

    def _deliver(self, frames: list[bytes]) -> None:
        for start in range(0, len(frames), FRAMES):
            message = frames[start : start + FRAMES]
            reason = invalid_reason(message)
            if reason:
                log.warning("ignored %d frames from the daemon: %s", len(message), reason)
                continue
            try:
                self._on_message(*message)
            except Exception:
                log.exception("handling a message failed")


def _frame(flags: int, content: bytes) -> bytes:
    """Return a frame of ZMTP 3.1."""
    size = len(content)
    if size < 256:
        return bytes([flags, size]) + content
    return bytes([flags | LONG]) + size.to_bytes(8, "big") + content


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write during the handshake.

    Raises:
        ConnectionResetError: the connection has ended. uvloop would raise RuntimeError.
    """
    if writer.transport.is_closing():
        raise ConnectionResetError
    writer.write(data)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    flags, size = await reader.readexactly(2)
    if flags & LONG:
        size = int.from_bytes(bytes([size]) + await reader.readexactly(7), "big")
    if size > _MAX_FRAME:
        raise CurveFailed(f"a frame of {size} bytes")
    return await reader.readexactly(size)
