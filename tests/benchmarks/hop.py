"""Measure of a single local hop: messages of id, header and payload, each answered; ``python -m
tests.benchmarks.hop``.

``link`` is our ``RequestChannel`` to our ``Mailbox``. ``libzmq`` is a DEALER to a ROUTER of libzmq, as a careful user
would join them to an event loop: read dry whenever their descriptor says so, and again after sending. ``zmq.asyncio``
is the same as pyzmq joins them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import uvloop
import zmq
import zmq.asyncio

from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.ipc.messages import Ack, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel

from .load import Phase, load
from .worker import obey

__all__: list[str] = []

_TIMEOUT: Final = 30.0
_HEADER: Final = encode(Ack())
_COPIED: Final = 65536
"""Payloads up to here are copied by libzmq's sockets: above, not copying is faster."""

_Request: TypeAlias = Callable[[bytes], Awaitable[object]]
"""Sends a payload and waits for the answer."""


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────


async def _serve_link(path: Path) -> None:
    def answer(sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        mailbox.send(sender, correlation, header)

    mailbox = Mailbox(path, answer)
    mailbox.open()
    await obey({}, "ready")
    mailbox.close()


async def _request_channel(path: Path) -> None:
    link = RequestChannel(path, "other side")
    link.open()
    await link.connected.wait()
    await _obey(lambda payload: link.request_encoded(_HEADER, payload, _TIMEOUT))
    link.close()


# ── libzmq ───────────────────────────────────────────────────────────────────────────────────────


class _Socket:
    """A socket of libzmq on the event loop. Its descriptor is edge-triggered."""

    def __init__(self, kind: int, on_message: Callable[[list[bytes]], object]) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        self._on_message = on_message

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self.socket.FD, self._drain)
        self._drain()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.FD)
        self._context.destroy(linger=0)

    def send(self, frames: list[bytes]) -> None:
        self.socket.send_multipart(frames, copy=len(frames[-1]) <= _COPIED)
        asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_message(frames)


async def _serve_libzmq(path: Path) -> None:
    router = _Socket(zmq.ROUTER, lambda frames: router.send([*frames[:3], b""]))
    router.socket.bind(f"ipc://{path}")
    router.start()
    await obey({}, "ready")
    router.close()


async def _request_libzmq(path: Path) -> None:
    pending = _Pending()
    dealer = _Socket(zmq.DEALER, pending.resolve)
    dealer.socket.connect(f"ipc://{path}")
    dealer.start()

    async def request(payload: bytes) -> None:
        correlation, answered = pending.expect()
        dealer.send([correlation, _HEADER, payload])
        await answered

    await _obey(request)
    dealer.close()


async def _serve_asyncio(path: Path) -> None:
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{path}")

    async def answer() -> None:
        while True:
            frames = await router.recv_multipart()
            await router.send_multipart([*frames[:3], b""])

    answering = asyncio.create_task(answer())
    await obey({}, "ready")
    answering.cancel()
    context.destroy(linger=0)


async def _request_asyncio(path: Path) -> None:
    context = zmq.asyncio.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"ipc://{path}")
    pending = _Pending()

    async def receive() -> None:
        while True:
            pending.resolve(await dealer.recv_multipart())

    async def request(payload: bytes) -> None:
        correlation, answered = pending.expect()
        await dealer.send_multipart([correlation, _HEADER, payload], copy=len(payload) <= _COPIED)
        await answered

    receiving = asyncio.create_task(receive())
    await _obey(request)
    receiving.cancel()
    context.destroy(linger=0)


class _Pending:
    """Questions and their answers, which carry the same id."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    def expect(self) -> tuple[bytes, asyncio.Future[None]]:
        self._next += 1
        correlation = self._next.to_bytes(8, "big")
        self._waiting[correlation] = answered = asyncio.get_running_loop().create_future()
        return correlation, answered

    def resolve(self, frames: list[bytes]) -> None:
        self._waiting.pop(frames[0]).set_result(None)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────


async def _obey(request: _Request) -> None:
    async def run(size: int, in_flight: int, seconds: float, warm_up: float) -> Phase:
        payload = bytes(size)

        async def call() -> None:
            await request(payload)

        return await load(call, in_flight, seconds, warm_up)

    await request(b"")
    await obey({"load": run}, "ready")


_ROLES: Final[dict[tuple[str, str], Callable[[Path], Any]]] = {
    ("server", "link"): _serve_link,
    ("client", "link"): _request_channel,
    ("server", "libzmq"): _serve_libzmq,
    ("client", "libzmq"): _request_libzmq,
    ("server", "zmq.asyncio"): _serve_asyncio,
    ("client", "zmq.asyncio"): _request_asyncio,
}

if __name__ == "__main__":
    uvloop.run(_ROLES[sys.argv[1], sys.argv[2]](Path(sys.argv[3])))
