"""Credit of a session: a slower reader stops the writer, and no side buffers more than a window."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from fastn_p2p_client.errors import BadMessage, ConnectionLost, StreamReset
from fastn_p2p_client.ipc.messages import ErrorReply, Message, SessionData, StopSending, WindowUpdate
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, RESET_LOST, SESSION_WINDOW
from tests.support.event_loop import run_pending
from tests.support.in_process_hop import CHUNK, COST, WINDOW, Hop, small_windows
from tests.support.session_endpoints import STREAMS, open_pair, outcome


async def test_a_reader_that_stalls_stops_the_writer_within_a_window() -> None:
    here, there = await open_pair()
    writing = asyncio.create_task(here.write(bytes(10 * SESSION_WINDOW)))
    await run_pending()
    await run_pending()
    stalled_at = here.bytes_written
    assert SESSION_WINDOW - MAX_CHUNK < stalled_at <= SESSION_WINDOW
    await run_pending()
    assert here.bytes_written == stalled_at
    assert not writing.done()
    await there.read_exactly(10 * SESSION_WINDOW)
    await writing


async def test_small_chunks_take_more_than_their_bytes() -> None:
    """Many of them take memory too: a window holds a number of them, not a million."""
    here, there = await open_pair()

    async def drip() -> None:
        while True:
            await here.write(b"x")

    dripping = asyncio.create_task(drip())
    count = -1
    while count != here.bytes_written:
        count = here.bytes_written
        await run_pending()
    assert SESSION_WINDOW // (CHUNK_COST + 1) - 1 <= count <= SESSION_WINDOW // (CHUNK_COST + 1)
    await there.read_exactly(count)
    await run_pending()
    assert here.bytes_written > count  # all of it was given back
    dripping.cancel()


async def test_credit_is_granted_for_all_bytes_read_in_any_parts() -> None:
    with small_windows():
        hop = await Hop().opened()
        for limit in (1, 7, CHUNK, 2 * CHUNK):
            writing = asyncio.create_task(hop.opener.write(STREAMS[0][: 5 * WINDOW]))
            heard = b""
            while len(heard) < 5 * WINDOW:
                await hop.deliver_until_idle()
                heard += await hop.server.read(limit)
            await hop.deliver_until_idle()
            await writing
            assert heard == STREAMS[0][: 5 * WINDOW]
        spent = sum(message.size for message in hop.queues[1].sent if isinstance(message, WindowUpdate))
        chunks = sum(isinstance(message, SessionData) for message in hop.queues[0].sent)
        assert 20 * WINDOW + chunks * COST - WINDOW // 4 <= spent <= 20 * WINDOW + chunks * COST


async def test_a_writer_wakes_for_credit_for_a_stop_and_for_a_failure() -> None:
    wakes: list[tuple[Message, type[Exception] | None]] = [
        (WindowUpdate(WINDOW), None),
        (StopSending(9), StreamReset),
        (ErrorReply.of(ConnectionLost(what="it")), ConnectionLost),
        (StopSending(RESET_LOST), ConnectionLost),
    ]
    with small_windows():
        for message, error in wakes:
            hop = await Hop().opened()
            await hop.opener.write(bytes(WINDOW - 4 * COST))
            writing = asyncio.create_task(hop.opener.write(bytes(2 * COST)))
            await run_pending()
            assert not writing.done()
            hop.opener.on_message(message, b"")
            result = await outcome(writing)
            assert result is None if error is None else type(result) is error


@pytest.mark.parametrize("size", [WINDOW - COST + 1, 0], ids=["beyond the credit", "empty"])
async def test_a_chunk_that_must_not_be_ends_the_session_for_both(size: int) -> None:
    with small_windows():
        hop = await Hop().opened()
        reading = asyncio.create_task(hop.server.read())
        writing = asyncio.create_task(hop.opener.read())
        await run_pending()
        hop.server.on_message(SessionData(), bytes(size))
        assert type(await outcome(reading)) is BadMessage
        assert type(await outcome(hop.server.write(b"x"))) is BadMessage
        await hop.deliver_until_idle()
        assert type(await outcome(writing)) is BadMessage
        assert hop.ended == [1, 1]


async def test_credit_never_adds_up_to_more_than_a_window() -> None:
    """More credit than a window is ignored, because the daemon's memory has to hold what is in flight."""
    with small_windows():
        hop = await Hop().opened()
        for size in (2**60, WINDOW, -(2**60), 0, 2**60):
            hop.opener.on_message(WindowUpdate(size), b"")
        writing = asyncio.create_task(hop.opener.write(bytes(100 * WINDOW)))
        await run_pending()
        assert not writing.done()
        assert 0 < hop.opener.bytes_written <= WINDOW
        writing.cancel()


async def test_a_write_copies_buffers_unless_told_not_to() -> None:
    here, there = await open_pair()
    buffer = bytearray(STREAMS[0])
    await here.write(buffer)
    buffer[:] = bytes(len(buffer))
    assert await there.read_exactly(len(buffer)) == STREAMS[0]
    await here.write(buffer, copy=False)
    with pytest.raises(BufferError):
        buffer.append(0)
    await there.read_exactly(len(buffer))
    buffer.append(0)
    numbers = memoryview(array("I", range(1000)))
    before = here.bytes_written
    await here.write(numbers, copy=False)
    assert here.bytes_written - before == numbers.nbytes  # whatever its items are, bytes are counted
    assert await there.read_exactly(numbers.nbytes) == numbers.tobytes()
