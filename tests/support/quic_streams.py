"""QUIC streams as the binding has them, without QUIC: what is done is noted, and a test plays the other side."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from iroh.iroh_ffi import IrohError

from fastn_p2p_actors.network.connections.quic_stream import QuicStream
from fastn_p2p_client.session.shared_memory import Chunk

__all__ = ["FakeReceive", "FakeSend", "FakeStream", "broken"]


class _Error(IrohError):
    def __init__(self, message: str) -> None:
        self._message = message

    def message(self) -> str:
        return self._message

    def __str__(self) -> str:
        return self._message


def broken(message: str) -> IrohError:
    """Return the error of the ``iroh`` binding with this message."""
    return _Error(message)


class FakeSend:
    """Our direction. One that is dropped neither finished nor reset looks complete to the other side: that is
    how the QUIC library has it."""

    def __init__(self) -> None:
        self.written = b""
        self.ends: list[str | int] = []
        """``"finished"``, or the code of a reset; only the first counts."""
        self.taking = asyncio.Event()
        """True if the peer's window is open."""
        self.taking.set()
        self._stop: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def stop_by_peer(self, code: int) -> None:
        self._stop.set_result(code)

    def _check(self) -> None:
        if self._stop.done():
            raise broken(f"Stopped({self._stop.result()})")

    async def write_all(self, data: bytes) -> None:
        self._check()
        await self.taking.wait()
        self._check()
        assert not self.ends
        self.written += bytes(data)

    async def finish(self) -> None:
        self._check()
        self.ends.append("finished")

    async def reset(self, code: int) -> None:
        self.ends.append(code)

    async def stopped(self) -> int | None:
        return await asyncio.shield(self._stop)


class FakeReceive:
    """The other side's direction."""

    def __init__(self) -> None:
        self._data = b""
        self._end: IrohError | str | None = None
        self._news = asyncio.Event()
        self.stopped_with: list[int] = []

    def feed(self, data: bytes) -> None:
        self._data += data
        self._news.set()

    def end(self, how: IrohError | str = "finished") -> None:
        self._end = how
        self._news.set()

    async def read(self, limit: int, room: memoryview | None = None) -> Chunk:
        while not self._data and self._end is None:
            self._news.clear()
            await self._news.wait()
        return self.read_now(limit, room)

    def read_now(self, limit: int, room: memoryview | None = None) -> Chunk:
        if isinstance(self._end, IrohError):
            error, self._end = self._end, "reset"  # the binding reports a reset once
            raise error
        data, self._data = self._data[:limit], self._data[limit:]
        if room is None:
            return data
        room[: len(data)] = data
        return room[: len(data)]

    async def stop(self, code: int) -> None:
        self.stopped_with.append(code)


class FakeStream:
    def __init__(self) -> None:
        self.sending, self.receiving = FakeSend(), FakeReceive()

    def halves(self) -> QuicStream:
        """Return both halves as a leg takes them."""
        return QuicStream(cast(Any, self.sending), cast(Any, self.receiving), 4)
