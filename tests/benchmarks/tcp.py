"""A small TCP service behind the tunnel, and its client; ``python -m tests.benchmarks.tcp server|client``."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import closing
from typing import Final

import uvloop

from .flow import Flow, Order, decode_flow, draw, encode, framed, order, pour, read_order
from .worker import obey

__all__: list[str] = []

_READ: Final = 256 * 1024
_BACKLOG: Final = 8
_ANSWER: Final = 4096


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
    loop = asyncio.get_running_loop()

    async def read_exact(size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await loop.sock_recv(connection, size - len(data))
            if not more:
                raise RuntimeError("the order is not complete")
            data += more
        return data

    with closing(connection):
        wanted = await read_order(read_exact)
        if wanted.do == "read":
            flow = await draw(lambda: loop.sock_recv(connection, _READ), wanted)
            await loop.sock_sendall(connection, encode(flow))
        else:
            await pour(lambda block: loop.sock_sendall(connection, block), wanted)
        connection.shutdown(socket.SHUT_WR)


class _Client:
    async def meet(self, port: int) -> None:
        """Say where connections go."""
        self._port = port

    async def pour(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        return await asyncio.gather(*(self._carry(order("read", seconds, warm_up)) for _ in range(streams)))

    async def draw(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        return await asyncio.gather(*(self._carry(order("write", seconds, warm_up)) for _ in range(streams)))

    async def _carry(self, wanted: Order) -> Flow:
        loop = asyncio.get_running_loop()
        with closing(socket.socket()) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", self._port))
            await loop.sock_sendall(connection, framed(wanted))
            if wanted.do == "write":
                return await draw(lambda: loop.sock_recv(connection, _READ), wanted)
            await pour(lambda block: loop.sock_sendall(connection, block), wanted)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while more := await loop.sock_recv(connection, _ANSWER):
                answer += more
            return decode_flow(answer)


async def _request() -> None:
    client = _Client()
    await obey({command.__name__: command for command in (client.meet, client.pour, client.draw)})


if __name__ == "__main__":
    uvloop.run(_serve() if sys.argv[1] == "server" else _request())
