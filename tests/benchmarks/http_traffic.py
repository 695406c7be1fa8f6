"""A small HTTP service, and its client; ``python -m tests.benchmarks.http_traffic server|client``.

Both do as little as they can for a request, because they share the processors with what is measured.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from itertools import count
from typing import Final, cast

import msgspec
import uvloop

from .flow import Flow, Order, decode_flow, draw, encode, order, pour
from .load import MESSAGE, Phase, load
from .worker import obey

__all__: list[str] = []

_READ: Final = 256 * 1024
_BACKLOG: Final = 256
_ORDER: Final = "/flow?"
_ANSWER: Final = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
    f"Content-Length: {len(MESSAGE)}\r\n\r\n{MESSAGE}"
).encode()
_ANSWER_END: Final = f"\r\n\r\n{MESSAGE}".encode()
_FLOW_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n"
_HEADERS: Final = (
    "User-Agent: benchmark/1.0\r\nAccept: text/html,application/json;q=0.9,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.5\r\nConnection: keep-alive\r\n"
)
_HEAD_END: Final = b"\r\n\r\n"
_ENDLESS: Final = 1 << 50
"""Length of a body that ends before."""


async def _serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    listener.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            tasks.add(task := loop.create_task(_carry(connection)))
            task.add_done_callback(tasks.discard)

    accepting = asyncio.create_task(accept())
    await obey({}, listener.getsockname()[1])
    accepting.cancel()
    listener.close()


async def _carry(connection: socket.socket) -> None:
    """Serve a connection whose first request says whether it is one of many small ones, or a body at full speed."""
    loop = asyncio.get_running_loop()
    data = b""
    while (end := data.find(_HEAD_END)) < 0:
        more = await loop.sock_recv(connection, _READ)
        if not more:
            connection.close()
            return
        data += more
    if _ORDER.encode() in data[:end]:
        with closing(connection):
            await _flow(connection, data[:end], lambda: loop.sock_recv(connection, _READ))
    else:
        _, requests = await loop.connect_accepted_socket(_Requests, connection)
        requests.data_received(data)


class _Requests(asyncio.Protocol):
    """Answers each request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write  # uvloop's is no subclass
        self._data = b""

    def data_received(self, data: bytes) -> None:
        heads = (self._data + data).split(_HEAD_END)
        self._data = heads.pop()
        if heads:
            self._write(_ANSWER * len(heads))


async def _flow(connection: socket.socket, head: bytes, read: Callable[[], Awaitable[bytes]]) -> None:
    loop = asyncio.get_running_loop()
    wanted = msgspec.json.decode(bytes.fromhex(head.split(b" ", 2)[1].decode().removeprefix(_ORDER)), type=Order)
    if wanted.do == "read":
        flow = await draw(read, wanted)
        await loop.sock_sendall(connection, _FLOW_ANSWER + encode(flow))
    else:
        await loop.sock_sendall(connection, _FLOW_ANSWER)
        await pour(lambda block: loop.sock_sendall(connection, block), wanted)
    connection.shutdown(socket.SHUT_WR)


class _Answers(asyncio.Protocol):
    """Connection that is kept for one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write  # uvloop's is no subclass
        self._waiting: asyncio.Future[None] | None = None
        self._data = b""

    async def request(self, head: bytes) -> None:
        self._data = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._write(head)
        await self._waiting

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._waiting is None or self._waiting.done() or not self._data.endswith(_ANSWER_END):
            return
        if self._data.startswith(b"HTTP/1.1 200 "):
            self._waiting.set_result(None)
        else:
            self._waiting.set_exception(RuntimeError(f"another answer: {self._data!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RuntimeError(f"an answer is not complete: {self._data!r}"))


class _Client:
    def __init__(self) -> None:
        self._idle: list[_Answers] = []
        self._numbers = count()

    async def meet(self, port: int) -> None:
        """Say where connections go; makes the first request."""
        self._port = port
        self._headers = f"Host: 127.0.0.1:{port}\r\n{_HEADERS}"
        await self._request()

    async def load(self, in_flight: int, seconds: float, warm_up: float) -> Phase:
        """Small requests over connections that are kept, each with a path of its own."""
        return await load(self._request, in_flight, seconds, warm_up)

    async def load_varied(self, in_flight: int, seconds: float, warm_up: float) -> Phase:
        """The same, each with a header of its own."""
        return await load(partial(self._request, varies=True), in_flight, seconds, warm_up)

    async def pour(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        """Upload."""
        return await asyncio.gather(*(self._carry(order("read", seconds, warm_up)) for _ in range(streams)))

    async def draw(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        """Download."""
        return await asyncio.gather(*(self._carry(order("write", seconds, warm_up)) for _ in range(streams)))

    async def _connect(self) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    async def _request(self, *, varies: bool = False) -> None:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Answers, "127.0.0.1", self._port)
        number = next(self._numbers)
        own = f"X-Request-Id: {number}\r\n" if varies else ""
        await connection.request(f"GET /items/{number}?page=1 HTTP/1.1\r\n{self._headers}{own}\r\n".encode())
        self._idle.append(connection)

    async def _carry(self, wanted: Order) -> Flow:
        loop = asyncio.get_running_loop()
        with closing(await self._connect()) as connection:

            def read() -> Awaitable[bytes]:
                return loop.sock_recv(connection, _READ)

            method, length = ("POST", f"Content-Length: {_ENDLESS}\r\n") if wanted.do == "read" else ("GET", "")
            target = f"{_ORDER}{msgspec.json.encode(wanted).hex()}"
            await loop.sock_sendall(connection, f"{method} {target} HTTP/1.1\r\n{self._headers}{length}\r\n".encode())
            if wanted.do == "write":
                await self._skip_head(connection)
                return await draw(read, wanted)
            await pour(lambda block: loop.sock_sendall(connection, block), wanted)
            connection.shutdown(socket.SHUT_WR)
            await self._skip_head(connection)
            answer = b""
            while more := await read():
                answer += more
            return decode_flow(answer)

    async def _skip_head(self, connection: socket.socket) -> None:
        head = b""
        while len(head) < len(_FLOW_ANSWER):
            more = await asyncio.get_running_loop().sock_recv(connection, len(_FLOW_ANSWER) - len(head))
            if not more:
                break
            head += more
        if head != _FLOW_ANSWER:
            raise RuntimeError(f"another answer: {head!r}")


async def _request() -> None:
    client = _Client()
    commands = (client.meet, client.load, client.load_varied, client.pour, client.draw)
    await obey({command.__name__: command for command in commands})


if __name__ == "__main__":
    uvloop.run(_serve() if sys.argv[1] == "server" else _request())
