"""HTTP server for strangers: limits of connections, and the table of paths."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from .metrics import Metrics
from .relay_limits import (
    BACKLOG,
    HANDSHAKE_TIMEOUT,
    KEEPALIVE,
    MAX_HEADER_FIELD,
    MAX_HEADERS,
    RelayLimits,
    limited_address,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
"""Answers a request. The second argument is what limits count as the address of the client."""

_CHALLENGE_LENGTH: Final = 64
_CHALLENGE_MARKS: Final = frozenset("-_.:")


class HttpServer(web.Server):
    """Listener that accepts a bounded number of connections, and closes those that send no request.

    Args:
        handlers: path -> handler of its requests. A path that ends with ``/`` takes everything below.
    """

    def __init__(self, handlers: dict[str, Handler], limits: RelayLimits, metrics: Metrics) -> None:
        super().__init__(
            self._answer,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            lingering_time=0,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_HEADER_FIELD,
            max_field_size=MAX_HEADER_FIELD,
        )
        self._handlers = handlers
        self._limits = limits
        self._metrics = metrics
        self._addresses: Counter[str] = Counter()
        """Connections of each address."""
        self._accepted: dict[web.RequestHandler, str] = {}
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        """Timers of connections that have not sent a request yet."""
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str | None, port: int, context: ssl.SSLContext | None) -> list[tuple[str, int]]:
        """Accept connections at ``host`` (None: all addresses). Return the addresses that are bound.

        Raises:
            OSError: the address cannot be bound.
        """
        listener = await asyncio.get_running_loop().create_server(
            self,
            host,
            port,
            ssl=context,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
        )
        self._listeners.append(listener)
        return [each.getsockname()[:2] for each in listener.sockets]

    def stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def close(self) -> None:
        """End all connections."""
        self.stop_listening()
        await self.shutdown(1.0)

    # ── connections ──────────────────────────────────────────────────────────────────────────────

    def __len__(self) -> int:
        return len(self._accepted)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        address = limited_address(peer[0]) if peer else ""
        full = self._addresses[address] >= self._limits.connections_per_address
        if full or len(self._accepted) >= self._limits.clients:
            self._metrics.connections_refused += 1
            reason = (
                f"{address} has {self._limits.connections_per_address}" if full else f"{len(self._accepted)} are open"
            )
            log.warning("connection refused: %s", reason)
            transport.abort()
            return
        self._metrics.connections += 1
        self._addresses[address] += 1
        self._accepted[handler] = address
        loop = asyncio.get_running_loop()
        self._waiting[handler] = loop.call_later(HANDSHAKE_TIMEOUT, self._expire, handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._stop_waiting(handler)
        address = self._accepted.pop(handler, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _expire(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._metrics.connections_expired += 1
        log.info("no request from %s within %g s", self._accepted.get(handler), HANDSHAKE_TIMEOUT)
        transport.abort()

    def _stop_waiting(self, handler: web.RequestHandler) -> None:
        timer = self._waiting.pop(handler, None)
        if timer is not None:
            timer.cancel()

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._stop_waiting(request.protocol)
        address = self._accepted.get(request.protocol)
        if address is None:  # refused, with the request already in the buffer
            return web.Response(status=503)
        handler = self._find_handler(request.path)
        if handler is None:
            return web.Response(status=404, text="there is nothing at this path\n")
        try:
            return await handler(request, address)
        except (web.HTTPException, asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            self._metrics.errors += 1
            log.exception("internal error at %s", request.path)
            return web.Response(status=500, text="internal error\n")

    def _find_handler(self, path: str) -> Handler | None:
        below = path.rfind("/") + 1
        return self._handlers.get(path) or (self._handlers.get(path[:below]) if below > 1 else None)


async def answer_ping(request: web.BaseRequest, _address: str) -> web.StreamResponse:
    """Answer a measurement of latency, and report the IP address from which the request comes. Browsers may ask, too.

    A daemon behind a NAT learns its outside address by that.
    """
    headers = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
    if request.remote:
        headers["Fastn-Client-Address"] = request.remote
    return web.Response(headers=headers)


async def answer_no_content(request: web.BaseRequest, _address: str) -> web.StreamResponse:
    """Answer a search for captive portals: the response to the challenge shows that no portal has answered."""
    challenge = request.headers.get("X-Iroh-Challenge", "")
    headers = {"Cache-Control": "no-store"}
    if 0 < len(challenge) < _CHALLENGE_LENGTH and all(
        each.isascii() and (each.isalnum() or each in _CHALLENGE_MARKS) for each in challenge
    ):
        headers["X-Iroh-Response"] = f"response {challenge}"
    return web.Response(status=204, headers=headers)


async def answer_index(_request: web.BaseRequest, _address: str) -> web.StreamResponse:
    return web.Response(text="This is a relay and directory of fastn-p2p.\n")
