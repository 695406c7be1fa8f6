"""A service behind Web, and the local port of ``fastn-p2p open`` for it, without a daemon in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastn_p2p.protocols._shared.error_reporter import ErrorReporter
from fastn_p2p.protocols._shared.service_address import ServiceAddress
from fastn_p2p.protocols._shared.sockets import open_listener
from fastn_p2p.protocols.web.loopback_server import LoopbackServer
from fastn_p2p.protocols.web.origin_guard import OriginGuard
from fastn_p2p.protocols.web.protocol import Web
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.testing import ProtocolClient, serve

ANN = Peer(PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"), "ann")
Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Opened:
    """A service of a peer, and its local port."""

    port: int
    web: ProtocolClient
    messages: list[str] = field(default_factory=list)
    error: Exception | None = None
    """Raised by each attempt to open a session."""
    sessions: int = 0
    """Attempts to open one."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def head(self, method: str = "GET", *lines: str, version: str = "1.1") -> bytes:
        return "\r\n".join((f"{method} / HTTP/{version}", f"Host: 127.0.0.1:{self.port}", *lines, "", "")).encode()

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes, and return all that comes until the end."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def opened(
    target: str, *, users: frozenset[int] | None = None, protocol: type[Web] = Web, **config: Any
) -> AsyncIterator[Opened]:
    loop = asyncio.get_running_loop()
    listener = await open_listener(ServiceAddress("127.0.0.1", 0))
    async with serve(protocol, {"target": target, **config}, instance="web", peer=ANN) as web:
        made = Opened(listener.address.port, web)

        async def connect(initial: Any) -> Any:
            made.sessions += 1
            if made.error is not None:
                raise made.error
            return await web.connect(initial)

        errors = ErrorReporter(made.messages.append, now=loop.time, call_later=loop.call_later)
        guard = OriginGuard([f"127.0.0.1:{made.port}"], f"http://127.0.0.1:{made.port}/")
        running = asyncio.ensure_future(LoopbackServer(listener, connect, guard, errors, users).run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def service(serve_connection: Service, path: str = "") -> AsyncIterator[str]:
    """A service of this machine; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve_connection(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if path:
        server = await asyncio.start_unix_server(answer, path)
    else:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"unix:{path}" if path else f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def echo_heads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request without a body with its own head."""
    while True:
        head = await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return head and body of an answer that has a length."""
    head = await read_head(reader)
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.split(b":")[1]))
