"""Reads and writes of QUIC streams, between two endpoints on loopback: whatever ends or disturbs them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from iroh.iroh_ffi import BiStream, IrohError

from fastn_p2p_actors.network.transport import iroh_patches, rust_futures, stream_calls
from fastn_p2p_actors.network.transport.rust_futures import Poller
from fastn_p2p_actors.network.transport.stream_calls import StreamReader, StreamWriter, read, read_now, write_all
from tests.support.quic_pair import Pair, connected_pair

DEADLINE: Final = 60
LIMIT: Final = 256 * 1024
STREAMS: Final = 1000


@pytest.fixture(params=["functions of libc", "Python function"])
async def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    iroh_patches.install(loop)
    monkeypatch.setattr(rust_futures, "_pollers", [Poller(loop, fast=request.param == "functions of libc")])
    async with connected_pair() as connected, asyncio.timeout(4 * DEADLINE):
        yield connected
    rust_futures.poller().close()
    assert rust_futures.poller().is_fast is (request.param == "functions of libc")


class Reading:
    """Everything that a ``StreamReader`` brings, until the end or an error."""

    def __init__(self, stream: Any) -> None:
        self.data = bytearray()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reader = StreamReader(stream, self._on_ready)
        self._is_waiting = False
        self._on_ready()

    def _on_ready(self) -> None:
        try:
            while (data := self.reader.result() if self._is_waiting else self.reader.read(LIMIT)) is not None:
                self._is_waiting = False
                self.data += data
                if not data:
                    self.done.set_result(None)
                    return
            self._is_waiting = True
        except IrohError as error:
            self.done.set_exception(error)


async def test_bytes_arrive_whole_and_in_order_beyond_the_window_of_flow_control(pair: Pair) -> None:
    """The writer waits most of the time."""
    near, far = await pair.stream()
    sent = random.randbytes(8 * 1024 * 1024)
    written = asyncio.Event()
    writer = StreamWriter(near.send(), written.set)
    assert not writer.write(sent)
    assert not writer.is_written(), "nothing is read yet"
    reading = Reading(far.recv())
    async with asyncio.timeout(DEADLINE):
        while not writer.is_written():
            written.clear()
            await written.wait()
    await near.send().finish()
    await reading.done
    assert hashlib.sha256(reading.data).digest() == hashlib.sha256(sent).digest()
    reading.reader.close()
    writer.close()


async def test_the_faster_position_of_the_stack_is_used_and_sought_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are the same in both positions. Which one is faster changes in the middle."""

    def begin(is_lower: bool, start: Callable[..., int]) -> Callable[..., int]:
        def begun(*arguments: Any) -> int:
            used.append(is_lower)
            now[0] += 2.0 if is_lower is slow[0] else 1.0
            return start(*arguments)

        return begun

    used: list[bool] = []
    now, slow = [0.0], [False]
    positions = [
        (begin(bool(number), start), padding) for number, (start, padding) in enumerate(stream_calls._POSITIONS)
    ]
    monkeypatch.setattr(stream_calls, "_POSITIONS", positions)
    monkeypatch.setattr(stream_calls, "_start", stream_calls.StackPosition(lambda: now[0]).start)
    near, far = await pair.stream()
    sent = hashlib.sha256()
    received = hashlib.sha256()

    async def receive() -> None:
        while data := await read(far.recv(), LIMIT):
            received.update(data)

    receiving = asyncio.ensure_future(receive())
    for number in range(2 * stream_calls._REMEMBERED):
        slow[0] = number >= stream_calls._REMEMBERED
        block = random.randbytes(stream_calls._LARGE)
        sent.update(block)
        await write_all(near.send(), block)
    await near.send().finish()
    await receiving
    assert received.digest() == sent.digest()
    trials = stream_calls._TRIALS
    half = stream_calls._REMEMBERED
    first, second = used[-2 * half : -half], used[-half:]
    assert set(first[:trials]) == set(second[:trials]) == {False, True}
    assert (set(first[trials:]), set(second[trials:])) == ({True}, {False})


async def test_a_thousand_streams_at_once_carry_their_own_bytes(pair: Pair) -> None:
    """Some reads are cancelled again and again, which loses no bytes."""

    async def echo(far: BiStream) -> None:
        sending, receiving = far.send(), far.recv()
        while data := await read(receiving, 100):
            await write_all(sending, data)
        await sending.finish()

    async def ask(near: BiStream, number: int) -> None:
        sending, receiving = near.send(), near.recv()
        sent = number.to_bytes(4, "big") * (1 + number % 300)
        reply = b""
        await write_all(sending, sent)
        await sending.finish()
        while len(reply) < len(sent):
            reading = asyncio.ensure_future(read(receiving, LIMIT))
            if number % 3 == 0:
                await asyncio.sleep(0)
                reading.cancel()
                (outcome,) = await asyncio.gather(reading, return_exceptions=True)
                reply += outcome if isinstance(outcome, bytes) else b""
            else:
                reply += await reading
        assert reply == sent

    streams = [await pair.stream() for _ in range(STREAMS)]
    echoes = [asyncio.ensure_future(echo(far)) for _, far in streams]
    await asyncio.gather(*(ask(near, number) for number, (near, _) in enumerate(streams)))
    await asyncio.gather(*echoes)


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_an_end_reaches_a_read_and_a_write_that_wait(pair: Pair, ending: str) -> None:
    near, far = await pair.stream()
    reading = Reading(near.recv())
    plain = asyncio.ensure_future(write_all(near.send(), bytes(8 * 1024 * 1024)))
    await asyncio.sleep(0)
    if ending == "reset":
        await far.send().reset(7)
        await far.recv().stop(7)
    else:
        pair.theirs.close(7, b"enough")
    with pytest.raises(IrohError):
        await reading.done
    with pytest.raises(IrohError):
        await plain
    with pytest.raises(IrohError):
        await write_all(near.send(), b"late")
    reading.reader.close()


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_reading_now_reports_how_a_stream_has_ended(pair: Pair, ending: str) -> None:
    """The binding reports a reset once, and then the end of the stream: a lost error makes a broken stream whole."""
    near, far = await pair.stream()
    if ending == "reset":
        await far.send().reset(7)
        assert await near.recv().received_reset() == 7
    else:
        pair.theirs.close(7, b"enough")
        await pair.ours.closed()
    with pytest.raises(IrohError):
        read_now(near.recv(), 1)


async def test_reading_now_never_waits(pair: Pair) -> None:
    near, far = await pair.stream()
    receiving = near.recv()
    assert read_now(receiving, LIMIT) == b""
    await write_all(far.send(), b"first")
    assert await read(receiving, 2) == b"fi"
    assert read_now(receiving, LIMIT) == b"rst"
    assert read_now(receiving, LIMIT) == b""


async def test_closing_a_reader_and_a_writer_ends_what_waits_and_calls_nobody(pair: Pair) -> None:
    near, far = await pair.stream()
    calls: list[str] = []
    receiving = near.recv()
    reader = StreamReader(receiving, lambda: calls.append("reader"))
    writer = StreamWriter(near.send(), lambda: calls.append("writer"))
    assert reader.read(LIMIT) is None
    assert not writer.write(bytes(8 * 1024 * 1024))
    reader.close()
    writer.close()
    await write_all(far.send(), b"still there")
    assert await read(receiving, LIMIT) == b"still there"
    assert calls == []


async def test_a_reader_gives_its_waker_back(pair: Pair) -> None:
    """Streams that come and go take no more descriptors than those that are open at once."""
    near, _far = await pair.stream()
    idle = len(rust_futures.poller()._wakers)
    for _ in range(100):
        reader = StreamReader(near.recv(), lambda: None)
        assert reader.read(LIMIT) is None
        reader.close()
    assert len(rust_futures.poller()._wakers) <= max(idle, 1)


@pytest.mark.parametrize("data", [b"", bytearray(b"bytes"), memoryview(b"a view"), bytes(100_000)])
async def test_every_kind_of_bytes_is_written(pair: Pair, data: Any) -> None:
    near, far = await pair.stream()
    await write_all(near.send(), data)
    await near.send().finish()
    reading = Reading(far.recv())
    await reading.done
    assert reading.data == bytes(data)
    reading.reader.close()
