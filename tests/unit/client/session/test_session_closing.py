"""Closing a session: written bytes are delivered, and waiting tasks are woken."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_client.errors import ConnectionLost, SessionClosed, StreamReset
from fastn_p2p_client.ipc.messages import ErrorReply, StopSending
from fastn_p2p_client.limits import RESET_CLOSED, RESET_FAILED, RESET_LOST
from tests.support.event_loop import run_pending
from tests.support.in_process_hop import CHUNK, COST, WINDOW, Hop, small_windows
from tests.support.session_endpoints import open_pair, outcome, read_all


async def test_closing_delivers_written_bytes_and_discards_unread_ones() -> None:
    here, there = await open_pair()
    await there.write(b"never read")
    await here.write(b"all of it")
    await here.close()
    await here.close()
    assert await read_all(there) == b"all of it"
    error = await outcome(there.write(b"x"))
    assert isinstance(error, StreamReset)
    assert error.reset_code == RESET_CLOSED
    assert isinstance(await outcome(here.read()), SessionClosed)
    assert isinstance(await outcome(here.write(b"x")), SessionClosed)
    await there.close()  # that the other side has closed first is no error
    assert here.is_over
    assert there.is_over


async def test_leaving_the_block_closes_and_an_exception_resets() -> None:
    here, there = await open_pair()
    async with here:
        await here.write(b"whole")
    assert await read_all(there) == b"whole"
    for error in (KeyError("x"), asyncio.CancelledError()):
        here, there = await open_pair()
        await here.write(b"part")
        with pytest.raises(type(error)):
            async with here:
                raise error
        seen = await outcome(read_all(there))
        assert isinstance(seen, StreamReset)
        assert seen.reset_code == RESET_FAILED


async def test_closing_raises_if_written_bytes_were_not_passed_on() -> None:
    for message, error in (
        (StopSending(5), StreamReset),
        (StopSending(RESET_LOST), ConnectionLost),
        (ErrorReply.of(ConnectionLost(what="it")), ConnectionLost),
        (StopSending(RESET_CLOSED), type(None)),
    ):
        hop = await Hop().opened()
        await hop.opener.write(b"x")
        closing = asyncio.create_task(hop.opener.close())
        await run_pending()
        assert not closing.done()
        hop.opener.on_message(message, b"")
        assert type(await outcome(closing)) is error


async def test_closing_after_reading_to_the_end_raises_nothing() -> None:
    """A reader that has everything sees no error of the peer's end."""
    here, there = await open_pair()
    await there.write(b"everything")
    await there.close()
    assert await read_all(here) == b"everything"
    await here.close()
    assert here.is_over
    assert there.is_over


async def test_tasks_that_wait_learn_that_the_session_was_closed() -> None:
    with small_windows():
        for end in ("close", "reset"):
            hop = await Hop().opened()
            await hop.opener.write(bytes(WINDOW - 4 * COST))
            reading = asyncio.create_task(hop.opener.read())
            writing = asyncio.create_task(hop.opener.write(bytes(CHUNK)))
            await run_pending()
            if end == "close":
                closing = asyncio.create_task(hop.opener.close())
                await hop.deliver_until_idle()
                await closing
            else:
                hop.opener.reset()
                await hop.deliver_until_idle()
            assert isinstance(await outcome(reading), SessionClosed)
            assert isinstance(await outcome(writing), SessionClosed)
