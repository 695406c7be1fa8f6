"""The relay: the life of one client connection, from its request to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Final

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from fastn_p2p_actors.runtime.rate_limiter import RateLimiter, TokenBucket
from fastn_p2p_client.keys import id52_of

from .allowed_keys import AllowedKeys
from .client_connection import ClientConnection
from .client_registry import ClientRegistry
from .frames import PING, PING_BYTES, PONG, STATUS_LIMITED, V1, VERSIONS, encode_restarting
from .handshake import (
    CONFIRMATION,
    HandshakeFailed,
    encode_challenge,
    encode_denial,
    make_challenge,
    read_authentication,
)
from .metrics import Metrics
from .relay_limits import (
    CLOSE_TIMEOUT,
    FRAME_COST,
    HANDSHAKE_TIMEOUT,
    MAX_ADDRESSES,
    MAX_FRAME,
    RESTART_SPREAD_MS,
    RESTART_TRY_MS,
    SWEEP_INTERVAL,
    RelayLimits,
    rate_of,
)

log = logging.getLogger(__name__)

_PING_FRAME: Final = 1 + PING_BYTES
_ENDED: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class DatagramRelay:
    """Passes datagrams between its clients.

    Args:
        access: keys that may connect.
    """

    def __init__(self, limits: RelayLimits, access: AllowedKeys, metrics: Metrics) -> None:
        self.clients = ClientRegistry(limits, metrics)
        self._limits = limits
        self._access = access
        self._metrics = metrics
        self._client_rate = rate_of(limits.client_rate)
        address_rate = rate_of(limits.address_rate)
        self._addresses = RateLimiter[str](address_rate, MAX_ADDRESSES) if address_rate else None
        self._is_stopping = False
        self._all_ended = asyncio.Event()

    async def serve(self, request: web.BaseRequest, address: str) -> web.StreamResponse:
        """Serve the client that has sent ``request``, until its connection ends.

        Args:
            address: what the limits of an address count.
        """
        offered = {each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
        version = next((each for each in VERSIONS if each in offered), None)
        if self._is_stopping:
            return web.Response(status=503, text="the relay is stopping\n")
        if version is None:
            return web.Response(
                status=400, text=f"a relay client offers the WebSocket protocol {' or '.join(VERSIONS)}\n"
            )
        websocket = web.WebSocketResponse(
            protocols=(version,),
            autoping=False,
            compress=False,
            max_msg_size=MAX_FRAME + 1,  # aiohttp refuses a message of exactly the limit
            timeout=CLOSE_TIMEOUT,
        )
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await websocket.prepare(request)
                key = await self._authenticate(websocket)
        except (HandshakeFailed, TimeoutError, ConnectionError) as error:
            self._metrics.handshakes_failed += 1
            log.info("no relay handshake from %s: %s", address, error or type(error).__name__)
            await self._deny(websocket, str(error) or "the handshake took too long")
            return websocket
        if not self._access.admits(key):
            self._metrics.handshakes_denied += 1
            log.info("%s from %s is not on the access list", id52_of(key), address)
            await self._deny(websocket, "this endpoint is not on the relay's access list")
            return websocket
        transport = request.transport
        if transport is None or self._is_stopping:
            return websocket
        client = ClientConnection(key, version, transport, self._limits.pending, time.monotonic())
        client.send_control(CONFIRMATION)
        self._metrics.handshakes += 1
        self.clients.add(client)
        try:
            await self._read(client, websocket, address)
        finally:
            self.clients.remove(client)
            if self._is_stopping and not len(self.clients):
                self._all_ended.set()
        return websocket

    async def sweep_forever(self) -> None:
        """Look at all clients every ``SWEEP_INTERVAL`` seconds."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.clients.sweep(time.monotonic())

    async def stop(self) -> None:
        """Tell each client that the relay restarts, and close its connection."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        for client in list(self.clients):
            client.send_control(encode_restarting(secrets.randbelow(RESTART_SPREAD_MS), RESTART_TRY_MS))
            client.close(WSCloseCode.GOING_AWAY, loop.call_later)
        if len(self.clients):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT + SWEEP_INTERVAL):
                    await self._all_ended.wait()

    def disconnect_denied(self) -> None:
        """Close the connections of clients that the access list does not admit any more."""
        for client in list(self.clients):
            if not self._access.admits(client.key):
                client.close(WSCloseCode.POLICY_VIOLATION, asyncio.get_running_loop().call_later)

    async def _authenticate(self, websocket: web.WebSocketResponse) -> bytes:
        challenge = make_challenge()
        await websocket.send_bytes(encode_challenge(challenge))
        message = await websocket.receive()
        if message.type is not WSMsgType.BINARY:
            raise HandshakeFailed("not an authentication frame")
        return read_authentication(message.data, challenge)

    async def _deny(self, websocket: web.WebSocketResponse, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if websocket.prepared and not websocket.closed:
                    await websocket.send_bytes(encode_denial(reason))
                    await websocket.close(code=WSCloseCode.POLICY_VIOLATION)
        except (TimeoutError, ConnectionError):
            return

    async def _read(self, client: ClientConnection, websocket: web.WebSocketResponse, address: str) -> None:
        """Read frames until the connection ends or breaks the protocol."""
        now = time.monotonic()
        own = TokenBucket(self._client_rate, now) if self._client_rate else None
        is_limited = False
        receive, forward = websocket.receive, self.clients.forward
        while True:
            message = await receive()
            now = client.last_received_at = time.monotonic()
            kind = message.type
            if kind is WSMsgType.BINARY:
                frame = message.data
                if not forward(client, frame) and not self._control(client, frame):
                    self._misbehaved(client, address, f"a frame of type {frame[:1].hex()} with {len(frame)} bytes")
                    return
                cost = len(frame) + FRAME_COST
            elif kind is WSMsgType.PING:
                await websocket.pong(message.data)
                cost = FRAME_COST * 2
            elif kind is WSMsgType.PONG:
                cost = FRAME_COST
            elif kind in _ENDED:
                if isinstance(message.data, WebSocketError):
                    self._misbehaved(client, address, f"no WebSocket message: {message.data}")
                return
            else:
                self._misbehaved(client, address, "a text message")
                return
            delay = self._delay(own, address, now, cost)
            if delay > 0:
                if not is_limited:
                    is_limited = True
                    self._metrics.clients_limited += 1
                    if client.version != V1:  # version 1 has only a text that means: of no use
                        client.send_status(STATUS_LIMITED)
                await asyncio.sleep(delay)

    def _control(self, client: ClientConnection, frame: bytes) -> bool:
        """Answer a ping or take a pong. Return False if the frame is neither."""
        if len(frame) != _PING_FRAME:
            return False
        if frame[0] == PING:
            client.send_control(bytes((PONG,)) + frame[1:])
        elif frame[0] == PONG:
            client.on_pong(frame[1:])
        else:
            return False
        return True

    def _delay(self, own: TokenBucket | None, address: str, now: float, cost: int) -> float:
        """Count bytes that were read. Return the seconds to wait before the next read."""
        delay = 0.0
        if own is not None and self._client_rate is not None:
            own.spend(now, cost)
            delay = -own.left(now) / self._client_rate.per_second
        if self._addresses is not None:
            shared = self._addresses.bucket(address, now)
            shared.spend(now, cost)
            delay = max(delay, -shared.left(now) / self._addresses.rate.per_second)
        return delay

    def _misbehaved(self, client: ClientConnection, address: str, what: str) -> None:
        self._metrics.clients_misbehaved += 1
        log.warning("%s from %s sent %s", id52_of(client.key), address, what)
        client.close(WSCloseCode.PROTOCOL_ERROR, asyncio.get_running_loop().call_later)
