"""A session's two directions end once each, and both sides learn how."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, P2PError, SessionClosed, StreamReset
from fastn_p2p_client.ipc.messages import (
    Ack,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import MAX_RESET_CODE, RESET_LOST, SESSION_WINDOW
from fastn_p2p_client.session.session import Session
from tests.support.event_loop import run_pending
from tests.support.in_process_hop import Hop
from tests.support.session_endpoints import open_pair, outcome, read_all


@pytest.mark.parametrize("side", [0, 1])
async def test_each_side_may_end_its_direction_and_still_read(side: int) -> None:
    pair = await open_pair()
    first, second = pair[side], pair[1 - side]
    await first.write(b"question")
    await first.send_eof()
    await first.send_eof()  # once more is no error
    assert await read_all(second) == b"question"
    assert await second.read() == b""  # and stays so
    with pytest.raises(SessionClosed):
        await first.write(b"more")
    await first.wait_sent()
    assert not first.is_over
    await second.write(b"answer")
    await second.send_eof()
    assert await read_all(first) == b"answer"
    await second.wait_sent()
    assert first.is_over
    assert second.is_over


@pytest.mark.parametrize("code", [0, 1, 7, MAX_RESET_CODE])
@pytest.mark.parametrize("side", [0, 1])
async def test_a_reset_is_seen_with_its_code_in_both_directions(side: int, code: int) -> None:
    pair = await open_pair()
    first, second = pair[side], pair[1 - side]
    await first.write(b"lost")
    reading = asyncio.create_task(second.read_exactly(100))
    await run_pending()
    first.reset(code)
    for work in (reading, second.read(), second.write(b"x"), second.send_eof(), second.wait_sent()):
        error = await outcome(work)
        assert isinstance(error, StreamReset), error
        assert error.reset_code == code
    for mine in (first.read(), first.write(b"x"), first.send_eof()):
        assert isinstance(await outcome(mine), SessionClosed)
    await run_pending()
    assert first.is_over
    assert second.is_over
    await first.close()


@pytest.mark.parametrize("code", [-1, MAX_RESET_CODE + 1])
async def test_a_code_that_is_no_protocols_is_refused(code: int) -> None:
    here, there = await open_pair()
    with pytest.raises(ValueError, match="reset code"):
        here.reset(code)
    await here.write(b"goes on")
    assert await there.read() == b"goes on"


async def test_a_handler_may_reset_before_it_has_accepted() -> None:
    """Then there is a session, which has ended with that code."""
    hop = Hop()
    hop.server.reset(7)
    await hop.server.close()
    await hop.deliver_until_idle()
    await hop.opener.opened
    error = await outcome(hop.opener.read())
    assert isinstance(error, StreamReset)
    assert error.reset_code == 7
    assert hop.ended == [1, 1]


async def test_a_complete_direction_stays_complete() -> None:
    """The end was there before the connection broke: that is known, and nothing of it is lost."""
    followed_by: list[Message] = [ErrorReply.of(ConnectionLost(what="it")), ResetStream(5), StopSending(5)]
    for message in followed_by:
        hop = await Hop().opened()
        await hop.opener.write(b"whole")
        await hop.opener.send_eof()
        hop.deliver_all()
        hop.server.on_message(message, b"")
        assert await hop.server.read(2) == b"wh"
        assert await read_all(hop.server) == b"ole"
        assert await hop.server.read() == b""


async def test_an_incomplete_direction_never_looks_complete() -> None:
    for message, error in (
        (ErrorReply.of(ConnectionLost(what="it")), ConnectionLost),
        (ResetStream(5), StreamReset),
        (ResetStream(RESET_LOST), ConnectionLost),
    ):
        hop = await Hop().opened()
        await hop.opener.write(b"part")
        hop.deliver_all()
        hop.server.on_message(message, b"")
        for _ in range(2):
            assert type(await outcome(hop.server.read())) is error
        hop.server.on_message(EndOfStream(), b"")  # too late
        assert type(await outcome(hop.server.read())) is error


async def test_nothing_is_sent_or_received_after_the_end() -> None:
    afterwards: list[tuple[Message, bytes]] = [
        (SessionData(), b"x"), (EndOfStream(), b""), (ResetStream(3), b""), (StopSending(3), b""),
        (WindowUpdate(5), b""), (Ack(), b""), (ErrorReply.of(ConnectionLost(what="it")), b""),
    ]  # fmt: skip
    hop = await Hop().opened()
    await hop.opener.send_eof()
    await hop.server.send_eof()
    await hop.deliver_until_idle()
    assert hop.ended == [1, 1]
    sent = [len(queue.sent) for queue in hop.queues]
    for end in hop.ends:
        for message, payload in afterwards:
            end.on_message(message, payload)
        assert await end.read() == b""
        await outcome(end.write(b"x"))
        await end.close()
        end.reset(1)
    assert hop.ended == [1, 1]
    # An end that comes twice is confirmed twice; that is all.
    assert [
        [message for message in queue.sent[count:] if not isinstance(message, Ack)]
        for queue, count in zip(hop.queues, sent, strict=True)
    ] == [[], []]


def words(sent: list[Message]) -> list[bytes]:
    return [encode(message) for message in sent]


async def test_one_side_that_wants_no_more_is_obeyed_with_its_own_code() -> None:
    hop = await Hop().opened()
    hop.opener.on_message(StopSending(11), b"")
    hop.opener.on_message(StopSending(12), b"")
    assert words(hop.queues[0].sent) == words([ResetStream(11)])


async def test_a_stop_after_the_end_of_the_stream_sends_no_reset() -> None:
    hop = await Hop().opened()
    await hop.opener.send_eof()
    hop.opener.on_message(Ack(), b"")
    hop.opener.on_message(StopSending(11), b"")
    assert words(hop.queues[0].sent) == words([EndOfStream()])


async def test_a_way_that_is_gone_ends_the_session() -> None:
    """The connection has ended: the next send fails."""
    broken = False
    ended: list[None] = []

    def send(header: bytes, payload: object) -> None:
        if broken:
            raise DaemonBusy(actor="network")

    session = Session(send, protocol="Test", instance="default", on_end=lambda: ended.append(None))
    session.on_message(SessionOpened(SESSION_WINDOW), b"")
    await session.write(b"fine")
    broken = True
    await outcome(session.write(b"not fine"))
    for work in (session.write(b"x"), session.read(), session.send_eof(), session.close()):
        assert isinstance(await outcome(work), P2PError)
    assert session.is_over
    assert len(ended) == 1


async def test_every_waiter_gets_the_reason_of_a_failed_opening() -> None:
    hop = Hop()
    writing = asyncio.create_task(hop.opener.write(b"x"))
    await run_pending()
    assert not writing.done()
    with pytest.raises(SessionClosed):
        print(hop.opener.peer)
    hop.opener.fail(ConnectionLost(what="it"))
    for work in (writing, hop.opener.read(), hop.opener.opened):
        assert isinstance(await outcome(work), ConnectionLost)
    assert hop.ended == [1, 0]
