"""Bytes of a session: everything that is written arrives, in parts of any size."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastn_p2p_client.ipc.messages import SessionData, encode
from fastn_p2p_client.session.session import Session
from tests.support.event_loop import run_pending
from tests.support.in_process_hop import CHUNK, WINDOW, Hop, small_windows
from tests.support.session_endpoints import STREAMS, open_pair


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3000), max_size=12),
    st.lists(st.integers(1, 2000), min_size=1, max_size=6),
    st.lists(st.integers(0, 3000), max_size=12),
    st.lists(st.integers(1, 2000), min_size=1, max_size=6),
)
async def test_bytes_arrive_unchanged_however_they_are_written_and_read(
    there: list[int], taken_there: list[int], back: list[int], taken_here: list[int]
) -> None:
    async def write(session: Session, stream: bytes, sizes: list[int]) -> bytes:
        position = 0
        for number, size in enumerate(sizes):
            part = stream[position : position + size]
            kinds: list[bytes | bytearray | memoryview] = [part, bytearray(part), memoryview(part)]
            await session.write(kinds[number % 3])
            position += size
        await session.send_eof()
        return stream[:position]

    async def read(session: Session, limits: list[int]) -> bytes:
        parts: list[bytes] = []
        while part := await session.read(limits[len(parts) % len(limits)]):
            assert len(part) <= limits[len(parts) % len(limits)]
            parts.append(part)
        return b"".join(parts)

    with small_windows():
        here, far = await open_pair()
        sent, answered, read_there, read_here = await asyncio.gather(
            write(here, STREAMS[0], there),
            write(far, STREAMS[1], back),
            read(far, taken_there),
            read(here, taken_here),
        )
        assert (read_there, read_here) == (sent, answered)
        assert (here.bytes_written, far.bytes_read) == (len(sent), len(sent))
        assert (far.bytes_written, here.bytes_read) == (len(answered), len(answered))
        await here.close()
        await far.close()
        assert here.is_over
        assert far.is_over


async def test_read_exactly_waits_for_all_bytes_and_reports_a_short_end() -> None:
    here, there = await open_pair()
    reading = asyncio.create_task(there.read_exactly(6))
    await here.write(b"abc")
    await run_pending()
    assert not reading.done()
    await here.write(b"defgh")
    assert await reading == b"abcdef"
    assert await there.read_exactly(0) == b""
    await here.send_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await there.read_exactly(10)
    assert (caught.value.partial, caught.value.expected) == (b"gh", 10)


async def test_nothing_that_is_asked_for_is_no_end() -> None:
    """``b""`` means the end, so a read of nothing is refused; and a write of nothing says nothing."""
    here, there = await open_pair()
    await here.write(b"x")
    for limit in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            await there.read(limit)
    await here.write(b"")
    assert await there.read() == b"x"


async def test_two_tasks_do_not_read_at_once() -> None:
    here, there = await open_pair()
    reading = asyncio.create_task(there.read())
    await run_pending()
    with pytest.raises(RuntimeError, match="another task"):
        await there.read()
    await here.write(b"for the first")
    assert await reading == b"for the first"


async def test_a_cancelled_read_takes_nothing_with_it() -> None:
    here, there = await open_pair()
    for _ in range(3):
        reading = asyncio.create_task(there.read())
        await run_pending()
        await here.write(b"kept")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await there.read() == b"kept"


async def test_a_read_cancelled_as_bytes_arrive_leaves_them() -> None:
    with small_windows():
        hop = await Hop().opened()
        reading = asyncio.create_task(hop.server.read())
        await run_pending()
        await hop.opener.write(b"kept")
        hop.deliver_all()
        reading.cancel()  # woken up, and cancelled before it runs
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await hop.server.read() == b"kept"


async def test_a_session_shows_how_far_it_has_come() -> None:
    here, there = await open_pair()
    await here.write(b"12345")
    assert await there.read(2) == b"12"
    assert repr(there) == "<Session Test (default): 2 read, 0 written>"
    assert repr(here) == "<Session Test (default): 0 read, 5 written>"


async def test_chunks_are_never_larger_than_they_may_be() -> None:
    with small_windows():
        hop = await Hop().opened()
        writing = asyncio.create_task(hop.opener.write(bytes(3 * WINDOW)))
        sizes: list[int] = []
        while not writing.done():
            await run_pending()
            sizes += [len(payload) for header, payload in hop.queues[0].waiting if header == encode(SessionData())]
            hop.deliver_all()
            await hop.server.read()
            hop.deliver_all()
        assert sum(sizes) == 3 * WINDOW
        assert max(sizes) == CHUNK
        assert min(sizes) > 0
