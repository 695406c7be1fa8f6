"""Coalescing reader: bytes arrive in order and at once; only small reads of a fast stream are merged."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import pytest
from iroh.iroh_ffi import IrohError

from fastn_p2p_actors.network.connections.coalescing_reader import FAST, WINDOW, CoalescingReader
from fastn_p2p_client.session.shared_memory import Chunk
from tests.support.event_loop import run_pending
from tests.support.quic_streams import FakeReceive, broken

LIMIT: Final = 256 * 1024
MUCH: Final = bytes(int(FAST * WINDOW) + 1)
"""Bytes in one window that make a stream fast."""


class ReaderSetup:
    """Stub of the binding's stream, read by a ``CoalescingReader`` whose clock the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.time_passes = asyncio.Event()
        self.stream = FakeReceive()
        self.inflow = CoalescingReader(cast(Any, self.stream), lambda: self.now, self._sleep)

    async def _sleep(self, _seconds: float) -> None:
        """Sleep until ``time_passes``, or not at all once it does."""
        await self.time_passes.wait()

    @classmethod
    async def fast(cls) -> ReaderSetup:
        setup = cls()
        await setup.window(MUCH)
        return setup

    async def window(self, data: bytes) -> None:
        """Let a window pass in which ``data`` arrives."""
        self.now += WINDOW
        self.stream.feed(data)
        assert await self.inflow.read(len(MUCH)) == data

    async def meanwhile(self, first: bytes) -> asyncio.Task[Chunk]:
        """Begin a read that finds ``first``."""
        self.stream.feed(first)
        reading = asyncio.ensure_future(self.inflow.read(LIMIT))
        await run_pending()
        return reading


async def test_a_stream_that_is_not_fast_brings_each_piece_at_once() -> None:
    setup = ReaderSetup()
    for piece in (b"first", b"second", bytes(1000)):
        assert (await setup.meanwhile(piece)).result() == piece


async def test_few_bytes_of_a_fast_stream_come_with_those_behind_them() -> None:
    setup = await ReaderSetup.fast()
    reading = await setup.meanwhile(b"few ")
    assert not reading.done()
    setup.stream.feed(b"and more")
    setup.time_passes.set()
    assert await reading == b"few and more"


async def test_few_bytes_without_more_behind_them_come_alone_and_nothing_is_lost() -> None:
    setup = await ReaderSetup.fast()
    setup.time_passes.set()
    assert await (await setup.meanwhile(b"few")) == b"few"
    assert await (await setup.meanwhile(b"later")) == b"later"


async def test_many_bytes_come_at_once_and_never_more_than_asked_for() -> None:
    setup = await ReaderSetup.fast()
    assert (await setup.meanwhile(bytes(LIMIT - 1))).result() == bytes(LIMIT - 1)
    reading = await setup.meanwhile(b"few")
    setup.stream.feed(bytes(2 * LIMIT))
    setup.time_passes.set()
    assert await reading == b"few" + bytes(LIMIT - 3)
    assert await setup.inflow.read(LIMIT) == bytes(LIMIT)
    assert await setup.inflow.read(3) == bytes(3), "as many as asked for: there is nothing to hold them for"


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_held_bytes_come_before_the_end_of_the_stream(how: str) -> None:
    setup = await ReaderSetup.fast()
    reading = await setup.meanwhile(b"last words")
    assert not reading.done()
    setup.time_passes.set()
    if how == "end":
        setup.stream.end()
        assert await reading == b"last words"
        assert await setup.inflow.read(LIMIT) == b""
    else:
        setup.stream.end(broken("Reset(7)"))
        assert await reading == b"last words"
        with pytest.raises(IrohError):
            await setup.inflow.read(LIMIT)


async def test_a_fast_stream_that_slows_down_is_not_held_any_more() -> None:
    setup = await ReaderSetup.fast()
    setup.now += WINDOW
    setup.time_passes.set()
    assert await (await setup.meanwhile(b"few")) == b"few"
    assert (await setup.meanwhile(b"few")).result() == b"few"
