"""Descriptors that the network process hands over: each over a connection of its own.

The event loops read sockets without the descriptors that come beside the bytes, and the kernel then drops them. So the
program connects once more, sends ``GetMemory``, and reads the answer by itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Final

from .messages import GetMemory, encode
from .transport.native import codec
from .transport.native.decoder import ZmtpDecoder
from .unix_sockets import check_listener, connect_unix, get_opener

_TIMEOUT: Final = 5.0
"""Seconds for all of it."""
_ID: Final = bytes(7) + b"\1"
_READ: Final = 4096
"""Bytes of one read: greeting, handshake and answer are shorter."""


async def receive_descriptor(path: Path, token: bytes) -> int:
    """Return the descriptor that the process behind the mailbox has ready for this token. The caller closes it.

    Raises:
        OSError: it gives none in time, or the connection failed.
        P2PError: another user's process could be behind the socket.
    """
    message, _ = codec.encode(_ID, encode(GetMemory(token)), b"")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_TIMEOUT):
        with await connect_unix(path) as sock:
            if get_opener() is None:
                check_listener(sock, path)
            sock.setblocking(False)
            await loop.sock_sendall(sock, codec.GREETING + codec.ready("DEALER") + message)
            return await _receive(loop, sock)


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> int:
    readable = asyncio.Event()
    answers: list[object] = []
    decoder = ZmtpDecoder("DEALER", _ignore, lambda *frames: answers.append(frames), _ignore, _ignore)
    loop.add_reader(sock, readable.set)
    try:
        while not answers:
            await readable.wait()
            readable.clear()
            try:
                data, descriptors, _, _ = socket.recv_fds(sock, _READ, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            if descriptors:
                return descriptors[0]
            if not data:
                raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            decoder.feed(data)
        raise OSError(errno.EACCES, "the network process has refused the memory of a session")
    except codec.ZmtpError as error:
        raise OSError(errno.EPROTO, str(error)) from None
    finally:
        loop.remove_reader(sock)


def _ignore(*_: object) -> None:
    """Ignore all but answers: nothing else was asked for."""
