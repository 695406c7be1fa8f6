"""The same on the iroh binding alone, without a daemon: the echo of calls, one bidirectional stream for each, and
streams that carry bytes at full speed.

As a careful user would write it: uvloop, msgspec, and the binding's byte-at-a-time writer replaced. ``--stock``
leaves that writer as it comes. Runs as ``python -m tests.benchmarks.raw server|client ADDRESS [--stock]``; the address
is the IPv4 address to which it is bound.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Any, Final

import msgspec
import uvloop
from iroh import iroh_ffi
from iroh.iroh_ffi import (
    BiStream,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointId,
    EndpointOptions,
    Incoming,
    IrohError,
    Preset,
    RelayMode,
)

from .flow import Flow, Order, decode_flow, draw, encode, framed, order, pour, read_order
from .load import MESSAGE, Phase, load
from .worker import obey

__all__: list[str] = []

_ECHO: Final = b"raw-echo"
_BYTES: Final = b"raw-bytes"
_MAX_MESSAGE: Final = 65536
_READ: Final = 256 * 1024
"""Bytes asked for in one read; what is there comes at once, so more makes no difference."""
_STREAMS_AT_ONCE: Final = 1024
"""QUIC's default of 100 would make calls of the 256-in-flight phase wait for each other."""

_decode: Final = msgspec.msgpack.Decoder().decode


def _write(builder: Any, value: Any) -> None:
    data = bytes(value)
    buffer = builder.rbuf
    if buffer.len + len(data) > buffer.capacity:
        buffer = builder.rbuf = _ffi._UniffiRustBuffer.reserve(buffer, len(data))
    ctypes.memmove(ctypes.addressof(buffer.data.contents) + buffer.len, data, len(data))
    buffer.len += len(data)


_ffi: Any = iroh_ffi


class _OneAddress(Preset):
    """Bind one IPv4 address, with no relay and no discovery: as the daemons under ``--network local``."""

    def __init__(self, address: str) -> None:
        self._address = address

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr(f"{self._address}:0")
        builder.bind_addr("[::1]:0")


async def _bind(address: str) -> Endpoint:
    _ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    return await Endpoint.bind(EndpointOptions(preset=_OneAddress(address), alpns=[_ECHO, _BYTES]))


# ── the server ───────────────────────────────────────────────────────────────────────────────────


class _Server:
    def __init__(self, address: str) -> None:
        self._address = address
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        endpoint = await _bind(self._address)
        self._spawn(self._accept(endpoint))
        await obey({}, (bytes(endpoint.id().to_bytes()).hex(), endpoint.bound_sockets()))
        await endpoint.close()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, endpoint: Endpoint) -> None:
        while (incoming := await endpoint.accept_next()) is not None:
            self._spawn(self._serve(incoming))

    async def _serve(self, incoming: Incoming) -> None:
        try:
            connection = await (await incoming.accept()).connect()
            connection.set_max_concurrent_bi_streams(_STREAMS_AT_ONCE)
            answer = self._echo if connection.alpn() == _ECHO else self._carry
            while True:
                self._spawn(answer(await connection.accept_bi()))
        except IrohError:
            return  # the client has closed the connection

    async def _carry(self, stream: BiStream) -> None:
        send, recv = stream.send(), stream.recv()
        wanted = await read_order(recv.read_exact)
        if wanted.do == "read":
            await send.write_all(encode(await draw(lambda: recv.read(_READ), wanted)))
        else:
            await pour(send.write_all, wanted)
        await send.finish()

    async def _echo(self, stream: BiStream) -> None:
        request = _decode(await stream.recv().read_to_end(_MAX_MESSAGE))
        send = stream.send()
        await send.write_all(encode({"echoed": f"Echo: {request['message']}"}))
        await send.finish()


# ── the client ───────────────────────────────────────────────────────────────────────────────────


class _Client:
    def __init__(self, address: str) -> None:
        self._address = address

    async def run(self) -> None:
        self._endpoint = await _bind(self._address)
        commands = (self.meet, self.load, self.fresh, self.pour, self.draw, self.both_directions, self.pour_and_load)
        await obey({command.__name__: command for command in commands})
        await self._endpoint.close()

    async def meet(self, server: tuple[str, list[str]]) -> None:
        self._server = server
        self._connection = await self._connect(_ECHO)
        self._carrier = await self._connect(_BYTES)

    async def _connect(self, alpn: bytes) -> Connection:
        name, addresses = self._server
        target = EndpointAddr(EndpointId.from_bytes(bytes.fromhex(name)), None, addresses)
        return await self._endpoint.connect(target, alpn)

    async def load(self, in_flight: int, seconds: float, warm_up: float) -> Phase:
        connection = self._connection
        return await load(lambda: _call(connection), in_flight, seconds, warm_up)

    async def fresh(self, seconds: float, warm_up: float) -> Phase:
        async def call() -> None:
            connection = await self._connect(_ECHO)
            await _call(connection)
            connection.close(0, b"")

        return await load(call, 1, seconds, warm_up)

    async def pour(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        return await self._carry(streams, order("read", seconds, warm_up))

    async def draw(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        return await self._carry(streams, order("write", seconds, warm_up))

    async def both_directions(self, seconds: float, warm_up: float) -> list[Flow]:
        flows = await asyncio.gather(self.pour(1, seconds, warm_up), self.draw(1, seconds, warm_up))
        return [flow for each in flows for flow in each]

    async def pour_and_load(self, seconds: float, warm_up: float) -> tuple[list[Flow], Phase]:
        flows, phase = await asyncio.gather(
            self.pour(1, seconds + 2 * warm_up, warm_up), self.load(1, seconds, 2 * warm_up)
        )
        return flows, phase

    async def _carry(self, streams: int, wanted: Order) -> list[Flow]:
        return await asyncio.gather(*(_carry(self._carrier, wanted) for _ in range(streams)))


async def _carry(connection: Connection, wanted: Order) -> Flow:
    stream = await connection.open_bi()
    send, recv = stream.send(), stream.recv()
    await send.write_all(framed(wanted))
    if wanted.do == "write":
        return await draw(lambda: recv.read(_READ), wanted)
    await pour(send.write_all, wanted)
    await send.finish()
    return decode_flow(await recv.read_to_end(_MAX_MESSAGE))


async def _call(connection: Connection) -> None:
    stream = await connection.open_bi()
    send = stream.send()
    await send.write_all(encode({"message": MESSAGE}))
    await send.finish()
    reply = _decode(await stream.recv().read_to_end(_MAX_MESSAGE))
    if not reply["echoed"]:
        raise RuntimeError("an empty reply")


if __name__ == "__main__":
    if "--stock" not in sys.argv:
        _ffi._UniffiRustBufferBuilder.write = _write
    _role, _address = sys.argv[1:3]
    uvloop.run(_Server(_address).run() if _role == "server" else _Client(_address).run())
