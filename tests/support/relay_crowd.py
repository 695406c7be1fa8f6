"""Thousands of clients of one relay, some of which misbehave, each from an address of loopback of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from nacl.signing import SigningKey

from fastn_p2p.relay.frames import CLIENT_AUTH, DATAGRAM_TO_CLIENT, DATAGRAM_TO_RELAY
from fastn_p2p.relay.handshake import signed_message

__all__ = ["MISBEHAVIOURS", "CrowdClient", "connect_all", "misbehave"]

_AT_ONCE: Final = 500
"""Connections that are opened at the same time."""
_AGAIN: Final = 0.5
"""Seconds after which a client that was closed misbehaves again."""
_UPGRADE: Final = (
    b"GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: iroh-relay-v2\r\n\r\n"
)
_CONFIRMED: Final = b"\x02"
_PING: Final = 9
_PONG: Final = b"\x0a"
_BINARY: Final = 0x82
"""First byte of a whole binary message of a WebSocket."""


def masked(frame: bytes) -> bytes:
    """Return a client's binary WebSocket message. Its mask is zero, so that this side costs little."""
    size = len(frame)
    head = bytes((_BINARY, 0x80 | size)) if size < 126 else struct.pack(">BBH", _BINARY, 0xFE, size)
    return head + bytes(4) + frame


class CrowdClient:
    """Client on a plain stream: ten thousand of aiohttp's would cost more than the relay.

    Args:
        number: of the client, from which its address follows.
        relay: address of the relay.
    """

    def __init__(self, number: int, relay: tuple[str, int]) -> None:
        self._host = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        self._relay = relay
        self._signer = SigningKey.generate()
        self.key = bytes(self._signer.verify_key)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, request: bytes = _UPGRADE) -> None:
        """Open a TCP connection, and send the request."""
        self.reader, self.writer = await asyncio.open_connection(
            *self._relay, local_addr=(self._host, 0), limit=1 << 17
        )
        self.writer.write(request)

    async def connect(self) -> None:
        """Open a connection, and prove the key."""
        await self.open()
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(f"refused: {head!r}")
        challenge = (await self.receive())[1:]
        signature = self._signer.sign(signed_message(challenge)).signature
        self.send(bytes((CLIENT_AUTH,)) + self.key + b"\x40" + signature)
        if (answer := await self.receive()) != _CONFIRMED:
            raise ConnectionError(f"denied: {answer!r}")

    def send(self, frame: bytes) -> None:
        self.writer.write(masked(frame))

    def send_to(self, receiver: bytes, content: bytes) -> None:
        """Send a datagram without ECN marks."""
        self.send(bytes((DATAGRAM_TO_RELAY,)) + receiver + b"\0" + content)

    async def receive(self) -> bytes:
        """Return the next frame. Answer pings.

        Raises:
            ConnectionError: the relay has closed the connection.
            asyncio.IncompleteReadError: the connection has ended.
        """
        while True:
            kind, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            frame = await self.reader.readexactly(size)
            if kind != _BINARY:
                raise ConnectionError(f"closed: {frame!r}")
            if frame[0] != _PING:
                return frame
            self.send(_PONG + frame[1:])

    async def receive_datagram(self) -> bytes:
        """Return the content of the next datagram."""
        while (frame := await self.receive())[0] != DATAGRAM_TO_CLIENT:
            pass
        return frame[34:]

    def abort(self) -> None:
        """End the connection without a goodbye."""
        self.writer.transport.abort()


async def connect_all(clients: Sequence[CrowdClient], on_connect: Callable[[CrowdClient], None]) -> None:
    """Connect all clients, some hundreds at the same time. ``on_connect`` is called with each."""
    for start in range(0, len(clients), _AT_ONCE):
        connecting = clients[start : start + _AT_ONCE]
        await asyncio.gather(*(client.connect() for client in connecting))
        for client in connecting:
            on_connect(client)


async def _half_handshake(client: CrowdClient, _victim: bytes) -> None:
    """Open a WebSocket, and prove no key."""
    await client.open()
    await client.reader.read()


async def _slow_request(client: CrowdClient, _victim: bytes) -> None:
    """Send a request byte by byte, without end."""
    await client.open(b"GET /relay HTTP/1.1\r\nHost: relay\r\nX: ")
    while not client.reader.at_eof():
        client.writer.write(b"x")
        await client.writer.drain()
        await asyncio.sleep(0.2)


async def _garbage(client: CrowdClient, _victim: bytes) -> None:
    await client.open(secrets.token_bytes(5000))
    await client.reader.read()


async def _never_read(client: CrowdClient, _victim: bytes) -> None:
    """Connect, and read nothing: floods are sent here."""
    await client.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    while not client.writer.is_closing():
        client.send_to(client.key, bytes(1000))
        await client.writer.drain()
        await asyncio.sleep(0.1)


async def _flood(client: CrowdClient, victim: bytes) -> None:
    """Send to one client as fast as the relay reads."""
    await client.connect()
    while True:
        client.send_to(victim, bytes(1200))
        await client.writer.drain()
        await asyncio.sleep(0)


async def _huge_frame(client: CrowdClient, _victim: bytes) -> None:
    """Announce a frame of a terabyte, and send a mebibyte of it."""
    await client.connect()
    client.writer.write(struct.pack(">BBQ", _BINARY, 0xFF, 1 << 40) + bytes(1 << 20))
    await client.reader.read()


async def _endless_message(client: CrowdClient, _victim: bytes) -> None:
    """Send a message in fragments that never end."""
    await client.connect()
    client.writer.write(struct.pack(">BBH", 0x02, 0xFE, 60_000) + bytes(60_004))
    while not client.reader.at_eof():
        client.writer.write(struct.pack(">BBH", 0x00, 0xFE, 60_000) + bytes(60_004))
        await client.writer.drain()
        await asyncio.sleep(0.01)


async def _unknown_frame(client: CrowdClient, _victim: bytes) -> None:
    await client.connect()
    client.send(b"\x3f" + bytes(100))
    await client.reader.read()


async def _directory_flood(client: CrowdClient, _victim: bytes) -> None:
    """Publish forged packets as fast as the directory answers."""
    key = b"y" * 52
    request = b"PUT /pkarr/" + key + b" HTTP/1.1\r\nHost: relay\r\nContent-Length: 500\r\n\r\n"
    await client.open(request + secrets.token_bytes(500))
    while await client.reader.read(4096):
        client.writer.write(request + secrets.token_bytes(500))
        await client.writer.drain()


MISBEHAVIOURS: Final[dict[str, Callable[[CrowdClient, bytes], Awaitable[None]]]] = {
    "half a handshake": _half_handshake,
    "a slow request": _slow_request,
    "garbage": _garbage,
    "never reads": _never_read,
    "floods": _flood,
    "a huge frame": _huge_frame,
    "a message without end": _endless_message,
    "an unknown frame": _unknown_frame,
    "floods the directory": _directory_flood,
}


async def misbehave(client: CrowdClient, kind: str, victim: bytes) -> None:
    """Misbehave until cancelled, again after each disconnect.

    Args:
        kind: one of ``MISBEHAVIOURS``.
        victim: key of the client that floods are sent to.
    """
    try:
        while True:
            # RuntimeError: uvloop's, when the relay has closed the connection before the next write.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, RuntimeError):
                await MISBEHAVIOURS[kind](client, victim)
            if hasattr(client, "writer"):
                client.abort()
            await asyncio.sleep(_AGAIN)
    finally:
        if hasattr(client, "writer"):
            client.abort()
