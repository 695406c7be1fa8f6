"""Clients of a relay that a test controls frame by frame, and relay servers in the test's process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
from nacl.signing import SigningKey

from fastn_p2p.relay.config import ListenAddress, RelayConfig
from fastn_p2p.relay.frames import CLIENT_AUTH, DATAGRAM_TO_RELAY, V2
from fastn_p2p.relay.handshake import signed_message
from fastn_p2p.relay.relay_limits import RelayLimits
from fastn_p2p.relay.relay_server import RelayServer
from fastn_p2p_actors.credentials.dns_packet import encode_txt_packet
from fastn_p2p_actors.credentials.pkarr import encode_key, join_body, signing_input

__all__ = ["RelayClient", "running_relay", "signed_packet", "z32"]

DEADLINE = 60.0
"""Seconds that a test waits for what must come."""


@contextlib.asynccontextmanager
async def running_relay(
    directory_file: Path | None = None,
    *,
    allow: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    discovery_port: int = 0,
    **limits: int,
) -> AsyncIterator[RelayServer]:
    """A relay on a free port of loopback."""
    config = RelayConfig(
        listen=ListenAddress("127.0.0.1", 0),
        directory_file=directory_file,
        certificate=certificate,
        key=key,
        discovery_port=discovery_port,
        allow=allow,
        limits=RelayLimits(**limits),
    )
    server = RelayServer(config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class RelayClient:
    """A client whose every frame the test chooses."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession, key: SigningKey):
        self._websocket = websocket
        self._session = session
        self.signer = key
        self.key = bytes(key.verify_key)

    @classmethod
    async def open(cls, url: str, key: SigningKey | None = None, version: str = V2) -> RelayClient:
        """Open a WebSocket without a handshake."""
        session = aiohttp.ClientSession()
        try:
            websocket = await session.ws_connect(f"{url}relay", protocols=[version], max_msg_size=0, ssl=False)
        except BaseException:
            await session.close()
            raise
        return cls(websocket, session, key or SigningKey.generate())

    @classmethod
    async def connect(cls, url: str, key: SigningKey | None = None, version: str = V2) -> RelayClient:
        """Open a WebSocket and prove the key."""
        client = await cls.open(url, key, version)
        challenge = await client.receive()
        await client.send(client.authentication(challenge[1:]))
        confirmed = await client.receive()
        assert confirmed == b"\x02", confirmed
        return client

    def authentication(self, challenge: bytes) -> bytes:
        signature = self.signer.sign(signed_message(challenge)).signature
        return bytes((CLIENT_AUTH,)) + self.key + b"\x40" + signature

    async def send(self, frame: bytes) -> None:
        await self._websocket.send_bytes(frame)

    async def send_text(self, text: str) -> None:
        await self._websocket.send_str(text)

    async def send_to(self, receiver: bytes, content: bytes) -> None:
        """Send a datagram without ECN marks."""
        await self.send(bytes((DATAGRAM_TO_RELAY,)) + receiver + b"\0" + content)

    async def flood(self, receiver: bytes, content: bytes) -> None:
        """Send datagrams as fast as the relay reads, until cancelled."""
        while True:
            await self.send_to(receiver, content)
            await asyncio.sleep(0)

    def pause_reading(self) -> None:
        """Read nothing from the socket any more."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    async def receive(self) -> bytes:
        """Return the next frame."""
        message = await self._next()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        return bytes(message.data)

    async def closed(self) -> int | None:
        """Wait for the end, past any frames. Return the code with which the relay has closed."""
        while (await self._next()).type is aiohttp.WSMsgType.BINARY:
            pass
        return self._websocket.close_code

    async def abort(self) -> None:
        """End the connection without a goodbye, unless the relay has ended it."""
        connection = self._websocket._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        await self._session.close()

    @property
    def _transport(self) -> asyncio.Transport:
        connection = self._websocket._response.connection
        assert connection is not None
        return cast(asyncio.Transport, connection.transport)

    async def close(self) -> None:
        await self._websocket.close()
        await self._session.close()

    async def __aenter__(self) -> RelayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _next(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            return await self._websocket.receive()


def z32(signer: SigningKey) -> str:
    return encode_key(bytes(signer.verify_key))


def signed_packet(signer: SigningKey, sequence: int, value: bytes = b"value") -> bytes:
    """The body that publishes ``value``."""
    packet = encode_txt_packet(f"_record.{z32(signer)}", value, ttl=300)
    return join_body(signer.sign(signing_input(sequence, packet)).signature, sequence, packet)
