"""A session's two directions: whatever is written arrives, each ends once, and everybody knows how."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastn_p2p_client.errors import BadMessage, ConnectionLost, DaemonBusy, P2PError, SessionClosed, StreamReset
from fastn_p2p_client.limits import (
    CHUNK_COST,
    MAX_CHUNK,
    MAX_RESET_CODE,
    RESET_CLOSED,
    RESET_FAILED,
    RESET_LOST,
    SESSION_WINDOW,
)
from fastn_p2p_client.messages import Chunk, Credit, Done, Eof, Failure, Message, Opened, Reset, Stop, encode
from fastn_p2p_client.session import Session, ended_with
from fastn_p2p_client.testing import session_pair
from tests.unit.hop import CHUNK, COST, WINDOW, Hop, RelayedHop, a_few_turns, small_windows

Scenario = Callable[[], Coroutine[Any, Any, None]]
STREAMS: Final = [random.Random(side).randbytes(200_000) for side in (0, 1)]
"""What each side says, from the first byte on."""


def play(scenario: Scenario) -> None:
    """In an event loop of its own, which nothing may hold up."""

    async def in_time() -> None:
        async with asyncio.timeout(20):
            await scenario()

    uvloop.run(in_time())


async def standing() -> tuple[Session, Session]:
    """A pair whose session stands."""
    here, there = session_pair()
    there.accept()
    await here.opened
    return here, there


async def read_all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])


async def outcome(work: Awaitable[object]) -> object:
    """What came of it: the result, or the error."""
    try:
        return await work
    except Exception as error:
        return error


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3000), max_size=12),
    st.lists(st.integers(1, 2000), min_size=1, max_size=6),
    st.lists(st.integers(0, 3000), max_size=12),
    st.lists(st.integers(1, 2000), min_size=1, max_size=6),
)
def test_bytes_arrive_unchanged_however_they_are_written_and_read(
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

    async def scenario() -> None:
        with small_windows():
            here, far = await standing()
            said, answered, heard_there, heard_here = await asyncio.gather(
                write(here, STREAMS[0], there),
                write(far, STREAMS[1], back),
                read(far, taken_there),
                read(here, taken_here),
            )
            assert (heard_there, heard_here) == (said, answered)
            assert (here.bytes_written, far.bytes_read) == (len(said), len(said))
            assert (far.bytes_written, here.bytes_read) == (len(answered), len(answered))
            await here.close()
            await far.close()
            assert here.is_over
            assert far.is_over

    play(scenario)


def test_a_megabyte_written_at_once_arrives_in_chunks_of_the_largest_size() -> None:
    async def scenario() -> None:
        here, there = await standing()
        data = random.Random(3).randbytes(5 * SESSION_WINDOW + 1)
        writing = asyncio.create_task(here.write(data))
        parts = [await there.read()]
        assert len(parts[0]) == MAX_CHUNK
        while sum(map(len, parts)) < len(data):
            parts.append(await there.read())
        await writing
        assert b"".join(parts) == data

    play(scenario)


def test_what_is_written_may_be_changed_afterwards() -> None:
    """A buffer that is used again does not change what has been said."""

    async def scenario() -> None:
        here, there = await standing()
        buffer = bytearray(b"first")
        await here.write(buffer)
        buffer[:] = b"other"
        await here.write(memoryview(buffer))
        buffer[:] = b"third"
        assert await there.read_exactly(10) == b"firstother"

    play(scenario)


def test_read_exactly_waits_for_all_of_it_and_says_what_was_missing() -> None:
    async def scenario() -> None:
        here, there = await standing()
        reading = asyncio.create_task(there.read_exactly(6))
        await here.write(b"abc")
        await a_few_turns()
        assert not reading.done()
        await here.write(b"defgh")
        assert await reading == b"abcdef"
        assert await there.read_exactly(0) == b""
        await here.send_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await there.read_exactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"gh", 10)

    play(scenario)


def test_nothing_that_is_asked_for_is_no_end() -> None:
    """``b""`` means the end, so a read of nothing is refused; and a write of nothing says nothing."""

    async def scenario() -> None:
        here, there = await standing()
        await here.write(b"x")
        for limit in (0, -1):
            with pytest.raises(ValueError, match="at least one"):
                await there.read(limit)
        await here.write(b"")
        assert await there.read() == b"x"

    play(scenario)


def test_two_tasks_do_not_read_at_once() -> None:
    async def scenario() -> None:
        here, there = await standing()
        reading = asyncio.create_task(there.read())
        await a_few_turns()
        with pytest.raises(RuntimeError, match="another task"):
            await there.read()
        await here.write(b"for the first")
        assert await reading == b"for the first"

    play(scenario)


def test_a_cancelled_read_takes_nothing_with_it() -> None:
    async def scenario() -> None:
        here, there = await standing()
        for _ in range(3):
            reading = asyncio.create_task(there.read())
            await a_few_turns()
            await here.write(b"kept")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await there.read() == b"kept"

    async def cancelled_as_it_arrives() -> None:
        with small_windows():
            hop = await Hop().opened()
            reading = asyncio.create_task(hop.server.read())
            await a_few_turns()
            await hop.opener.write(b"kept")
            hop.deliver_all()
            reading.cancel()  # woken up, and cancelled before it runs
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await hop.server.read() == b"kept"

    play(scenario)
    play(cancelled_as_it_arrives)


# ── credit ───────────────────────────────────────────────────────────────────────────────────────


def test_a_reader_that_stalls_stops_the_writer_within_a_window() -> None:
    async def scenario() -> None:
        here, there = await standing()
        writing = asyncio.create_task(here.write(bytes(10 * SESSION_WINDOW)))
        await a_few_turns()
        await a_few_turns()
        stalled_at = here.bytes_written
        assert SESSION_WINDOW - MAX_CHUNK < stalled_at <= SESSION_WINDOW
        await asyncio.sleep(0.01)
        assert here.bytes_written == stalled_at
        assert not writing.done()
        await there.read_exactly(10 * SESSION_WINDOW)
        await writing

    play(scenario)


def test_small_chunks_take_more_than_their_bytes() -> None:
    """Many of them take memory too: a window holds a number of them, not a million."""

    async def scenario() -> None:
        here, there = await standing()

        async def drip() -> None:
            while True:
                await here.write(b"x")

        dripping = asyncio.create_task(drip())
        count = -1
        while count != here.bytes_written:
            count = here.bytes_written
            await asyncio.sleep(0.005)
        assert SESSION_WINDOW // (CHUNK_COST + 1) - 1 <= count <= SESSION_WINDOW // (CHUNK_COST + 1)
        await there.read_exactly(count)
        await a_few_turns()
        assert here.bytes_written > count  # all of it was given back
        dripping.cancel()

    play(scenario)


def test_credit_comes_back_for_all_that_was_read_in_whatever_parts() -> None:
    async def scenario() -> None:
        with small_windows():
            hop = await Hop().opened()
            for limit in (1, 7, CHUNK, 2 * CHUNK):
                writing = asyncio.create_task(hop.opener.write(STREAMS[0][: 5 * WINDOW]))
                heard = b""
                while len(heard) < 5 * WINDOW:
                    await hop.settle()
                    heard += await hop.server.read(limit)
                await hop.settle()
                await writing
                assert heard == STREAMS[0][: 5 * WINDOW]
            spent = sum(message.size for message in hop.lines[1].said if isinstance(message, Credit))
            chunks = sum(isinstance(message, Chunk) for message in hop.lines[0].said)
            assert 20 * WINDOW + chunks * COST - WINDOW // 4 <= spent <= 20 * WINDOW + chunks * COST

    play(scenario)


def test_a_writer_wakes_for_credit_for_a_stop_and_for_a_failure() -> None:
    wakes: list[tuple[Message, type[Exception] | None]] = [
        (Credit(WINDOW), None),
        (Stop(9), StreamReset),
        (Failure.of(ConnectionLost(what="it")), ConnectionLost),
        (Stop(RESET_LOST), ConnectionLost),
    ]

    async def scenario() -> None:
        with small_windows():
            for message, error in wakes:
                hop = await Hop().opened()
                await hop.opener.write(bytes(WINDOW - 4 * COST))
                writing = asyncio.create_task(hop.opener.write(bytes(2 * COST)))
                await a_few_turns()
                assert not writing.done()
                hop.opener.take(message, b"")
                result = await outcome(writing)
                assert result is None if error is None else type(result) is error

    play(scenario)


@pytest.mark.parametrize("size", [WINDOW - COST + 1, 0], ids=["beyond the credit", "empty"])
def test_a_chunk_that_must_not_be_ends_the_session_for_both(size: int) -> None:
    async def scenario() -> None:
        with small_windows():
            hop = await Hop().opened()
            reading = asyncio.create_task(hop.server.read())
            writing = asyncio.create_task(hop.opener.read())
            await a_few_turns()
            hop.server.take(Chunk(), bytes(size))
            assert type(await outcome(reading)) is BadMessage
            assert type(await outcome(hop.server.write(b"x"))) is BadMessage
            await hop.settle()
            assert type(await outcome(writing)) is BadMessage
            assert hop.ended == [1, 1]

    play(scenario)


def test_credit_never_adds_up_to_more_than_a_window() -> None:
    """Whatever the other side grants: what is on its way must fit the memory of whoever passes it on."""

    async def scenario() -> None:
        with small_windows():
            hop = await Hop().opened()
            for size in (2**60, WINDOW, -(2**60), 0, 2**60):
                hop.opener.take(Credit(size), b"")
            writing = asyncio.create_task(hop.opener.write(bytes(100 * WINDOW)))
            await a_few_turns()
            assert not writing.done()
            assert 0 < hop.opener.bytes_written <= WINDOW
            writing.cancel()

    play(scenario)


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", [0, 1])
def test_each_side_may_end_its_direction_and_still_read(side: int) -> None:
    async def scenario() -> None:
        pair = await standing()
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

    play(scenario)


@pytest.mark.parametrize("code", [0, 1, 7, MAX_RESET_CODE])
@pytest.mark.parametrize("side", [0, 1])
def test_a_reset_is_seen_with_its_code_in_both_directions(side: int, code: int) -> None:
    async def scenario() -> None:
        pair = await standing()
        first, second = pair[side], pair[1 - side]
        await first.write(b"lost")
        reading = asyncio.create_task(second.read_exactly(100))
        await a_few_turns()
        first.reset(code)
        for work in (reading, second.read(), second.write(b"x"), second.send_eof(), second.wait_sent()):
            error = await outcome(work)
            assert isinstance(error, StreamReset), error
            assert error.reset_code == code
        for mine in (first.read(), first.write(b"x"), first.send_eof()):
            assert isinstance(await outcome(mine), SessionClosed)
        await a_few_turns()
        assert first.is_over
        assert second.is_over
        await first.close()

    play(scenario)


@pytest.mark.parametrize("code", [-1, MAX_RESET_CODE + 1])
def test_a_code_that_is_no_protocols_is_refused(code: int) -> None:
    async def scenario() -> None:
        here, there = await standing()
        with pytest.raises(ValueError, match="reset code"):
            here.reset(code)
        await here.write(b"goes on")
        assert await there.read() == b"goes on"

    play(scenario)


def test_a_handler_may_reset_before_it_has_accepted() -> None:
    """Then there is a session, which has ended with that code."""

    async def scenario() -> None:
        hop = Hop()
        hop.server.reset(7)
        await hop.server.close()
        await hop.settle()
        await hop.opener.opened
        error = await outcome(hop.opener.read())
        assert isinstance(error, StreamReset)
        assert error.reset_code == 7
        assert hop.ended == [1, 1]

    async def by_an_exception() -> None:
        hop = Hop()
        with pytest.raises(KeyError):
            async with hop.server:
                raise KeyError
        assert not hop.lines[1].said  # whoever serves it still may say why not
        await hop.server.close()
        await hop.settle()
        error = await outcome(hop.opener.read())
        assert isinstance(error, StreamReset)
        assert error.reset_code == RESET_FAILED
        assert hop.ended == [1, 1]

    play(scenario)
    play(by_an_exception)


def test_what_had_come_completely_stays_complete_whatever_follows() -> None:
    """The end was there before the connection broke: that is known, and nothing of it is lost."""
    followed_by: list[Message] = [Failure.of(ConnectionLost(what="it")), Reset(5), Stop(5)]

    async def scenario() -> None:
        for message in followed_by:
            hop = await Hop().opened()
            await hop.opener.write(b"whole")
            await hop.opener.send_eof()
            hop.deliver_all()
            hop.server.take(message, b"")
            assert await hop.server.read(2) == b"wh"
            assert await read_all(hop.server) == b"ole"
            assert await hop.server.read() == b""

    play(scenario)


def test_what_was_not_complete_never_looks_so() -> None:
    async def scenario() -> None:
        for message, error in (
            (Failure.of(ConnectionLost(what="it")), ConnectionLost),
            (Reset(5), StreamReset),
            (Reset(RESET_LOST), ConnectionLost),
        ):
            hop = await Hop().opened()
            await hop.opener.write(b"part")
            hop.deliver_all()
            hop.server.take(message, b"")
            for _ in range(2):
                assert type(await outcome(hop.server.read())) is error
            hop.server.take(Eof(), b"")  # too late
            assert type(await outcome(hop.server.read())) is error

    play(scenario)


def test_nothing_is_said_and_nothing_is_heard_after_the_end() -> None:
    afterwards: list[tuple[Message, bytes]] = [
        (Chunk(), b"x"), (Eof(), b""), (Reset(3), b""), (Stop(3), b""), (Credit(5), b""), (Done(), b""),
        (Failure.of(ConnectionLost(what="it")), b""),
    ]  # fmt: skip

    async def scenario() -> None:
        hop = await Hop().opened()
        await hop.opener.send_eof()
        await hop.server.send_eof()
        await hop.settle()
        assert hop.ended == [1, 1]
        said = [len(line.said) for line in hop.lines]
        for end in hop.ends:
            for message, payload in afterwards:
                end.take(message, payload)
            assert await end.read() == b""
            await outcome(end.write(b"x"))
            await end.close()
            end.reset(1)
        assert hop.ended == [1, 1]
        # An end that comes twice is confirmed twice; that is all.
        assert [
            [message for message in line.said[count:] if not isinstance(message, Done)]
            for line, count in zip(hop.lines, said, strict=True)
        ] == [[], []]

    play(scenario)


# ── closing ──────────────────────────────────────────────────────────────────────────────────────


def test_closing_delivers_what_was_written_and_gives_up_what_was_not_read() -> None:
    async def scenario() -> None:
        here, there = await standing()
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

    play(scenario)


def test_leaving_the_block_closes_and_an_exception_resets() -> None:
    async def scenario() -> None:
        here, there = await standing()
        async with here:
            await here.write(b"whole")
        assert await read_all(there) == b"whole"
        for error in (KeyError("x"), asyncio.CancelledError()):
            here, there = await standing()
            await here.write(b"part")
            with pytest.raises(type(error)):
                async with here:
                    raise error
            seen = await outcome(read_all(there))
            assert isinstance(seen, StreamReset)
            assert seen.reset_code == RESET_FAILED

    play(scenario)


def test_cancelling_whoever_waits_in_a_session_resets_it() -> None:
    async def scenario() -> None:
        here, there = await standing()

        async def serve() -> None:
            async with there:
                await there.read()

        serving = asyncio.create_task(serve())
        await a_few_turns()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert isinstance(await outcome(here.read()), StreamReset)

    play(scenario)


def test_closing_tells_when_what_was_written_has_not_been_passed_on() -> None:
    async def scenario() -> None:
        for message, error in (
            (Stop(5), StreamReset),
            (Stop(RESET_LOST), ConnectionLost),
            (Failure.of(ConnectionLost(what="it")), ConnectionLost),
            (Stop(RESET_CLOSED), type(None)),
        ):
            hop = await Hop().opened()
            await hop.opener.write(b"x")
            closing = asyncio.create_task(hop.opener.close())
            await a_few_turns()
            assert not closing.done()
            hop.opener.take(message, b"")
            assert type(await outcome(closing)) is error

    play(scenario)


def test_closing_what_has_only_read_to_its_end_is_quiet() -> None:
    """A reader that has everything need not care how the other side took its leave."""

    async def scenario() -> None:
        here, there = await standing()
        await there.write(b"everything")
        await there.close()
        assert await read_all(here) == b"everything"
        await here.close()
        assert here.is_over
        assert there.is_over

    play(scenario)


def test_who_waits_elsewhere_learns_that_the_session_was_closed() -> None:
    async def scenario() -> None:
        with small_windows():
            for end in ("close", "reset"):
                hop = await Hop().opened()
                await hop.opener.write(bytes(WINDOW - 4 * COST))
                reading = asyncio.create_task(hop.opener.read())
                writing = asyncio.create_task(hop.opener.write(bytes(CHUNK)))
                await a_few_turns()
                if end == "close":
                    closing = asyncio.create_task(hop.opener.close())
                    await hop.settle()
                    await closing
                else:
                    hop.opener.reset()
                    await hop.settle()
                assert isinstance(await outcome(reading), SessionClosed)
                assert isinstance(await outcome(writing), SessionClosed)

    play(scenario)


def test_a_way_that_is_gone_ends_the_session() -> None:
    """Nobody can be told any more: whoever says something learns it."""

    async def scenario() -> None:
        broken = False
        ended: list[None] = []

        def send(header: bytes, payload: object) -> None:
            if broken:
                raise DaemonBusy(actor="network")

        session = Session(send, protocol="Test", instance="default", on_end=lambda: ended.append(None))
        session.take(Opened(SESSION_WINDOW), b"")
        await session.write(b"fine")
        broken = True
        await outcome(session.write(b"not fine"))
        for work in (session.write(b"x"), session.read(), session.send_eof(), session.close()):
            assert isinstance(await outcome(work), P2PError)
        assert session.is_over
        assert len(ended) == 1

    play(scenario)


def test_a_session_that_never_stands_says_why_to_everybody() -> None:
    async def scenario() -> None:
        hop = Hop()
        writing = asyncio.create_task(hop.opener.write(b"x"))
        await a_few_turns()
        assert not writing.done()
        with pytest.raises(SessionClosed):
            print(hop.opener.peer)
        hop.opener.fail(ConnectionLost(what="it"))
        for work in (writing, hop.opener.read(), hop.opener.opened):
            assert isinstance(await outcome(work), ConnectionLost)
        assert hop.ended == [1, 0]

    play(scenario)


def test_codes_stand_for_errors() -> None:
    assert isinstance(ended_with(RESET_LOST), ConnectionLost)
    for code in (0, RESET_CLOSED, RESET_FAILED, 2**62 - 1):
        error = ended_with(code)
        assert isinstance(error, StreamReset)
        assert error.reset_code == code


def test_a_session_shows_how_far_it_has_come() -> None:
    async def scenario() -> None:
        here, there = await standing()
        await here.write(b"12345")
        assert await there.read(2) == b"12"
        assert repr(there) == "<Session Test (default): 2 read, 0 written>"
        assert repr(here) == "<Session Test (default): 0 read, 5 written>"

    play(scenario)


# ── every order ──────────────────────────────────────────────────────────────────────────────────


class Player:
    """One side of a session in the model: does what it is told, and keeps account."""

    def __init__(self, session: Session, stream: bytes) -> None:
        self.session = session
        self._stream = stream
        self._writing: asyncio.Task[object] | None = None
        self._reading: asyncio.Task[object] | None = None
        self._planned = 0
        self._closing: list[asyncio.Task[object]] = []
        self.heard = b""
        self.complete = False
        self.errors: list[BaseException] = []
        self.codes: set[int] = set()
        """With which this side has ended the session."""

    def do(self, what: str, size: int) -> None:
        if what == "write" and (self._writing is None or self._writing.done()):
            data = self._stream[self._planned : self._planned + size]
            self._planned += size
            self._writing = asyncio.create_task(self._told(self.session.write(data)))
        elif what == "read" and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(size + 1))
        elif what == "eof":
            self._closing.append(asyncio.create_task(self._told(self.session.send_eof())))
        elif what == "close":
            self.codes.add(RESET_CLOSED)
            self._closing.append(asyncio.create_task(self._told(self.session.close())))
        elif what == "reset":
            self.codes.add(size)
            self.session.reset(size)

    async def _told(self, work: Awaitable[object]) -> object:
        try:
            return await work
        except P2PError as error:
            self.errors.append(error)
            return error

    async def _read(self, limit: int) -> object:
        got = await self._told(self.session.read(limit))
        if isinstance(got, bytes):
            assert len(got) <= limit
            assert not (got and self.complete)
            self.heard += got
            self.complete = self.complete or not got
        return got

    def _tasks(self) -> list[asyncio.Task[object]]:
        return [task for task in (self._writing, self._reading, *self._closing) if task is not None]

    @property
    def waits(self) -> bool:
        return any(not task.done() for task in self._tasks())

    def die(self) -> None:
        for task in self._tasks():
            task.cancel()

    def faults(self) -> Iterator[BaseException]:
        """Exceptions that are none of the system's."""
        for task in self._tasks():
            if task.done() and (error := task.exception()) is not None:
                yield error


def is_told_the_truth(player: Player, other: Player, *, broken: bool = False) -> None:
    """What one side has heard and seen, by what the other side has said."""
    assert other._stream.startswith(player.heard)
    assert player.session.bytes_read == len(player.heard)
    assert len(player.heard) <= other.session.bytes_written <= other._planned
    if player.complete:
        assert len(player.heard) == other.session.bytes_written
    for error in player.errors:
        if isinstance(error, StreamReset):
            assert error.reset_code in other.codes
        elif isinstance(error, ConnectionLost):
            assert broken
        else:
            assert isinstance(error, SessionClosed), repr(error)
    assert not list(player.faults())


actions = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(
            st.sampled_from(["write", "read", "write", "read", "eof", "close", "reset"]),
            st.integers(0, 1),
            st.one_of(st.integers(0, 2500), st.integers(0, 3)),
        ),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", [Hop, RelayedHop])
@settings(max_examples=250)
@given(actions=actions, last=st.lists(st.sampled_from(["close", "reset"]), min_size=2, max_size=2))
@example(actions=[("reset", 1, 7)], last=["close", "close"])
@example(actions=[("write", 1, 9), ("eof", 1, 0), ("close", 0, 0), ("deliver", 0, 4)], last=["reset", "close"])
def test_both_sides_are_over_in_whatever_order_things_happen(
    kind: type[Hop], actions: list[tuple[str, int, int]], last: list[str]
) -> None:
    """Writes, reads, ends and messages in any order; in the end nobody waits, and nobody was told a lie."""

    async def scenario() -> None:
        hop = kind()
        players = [Player(session, stream) for session, stream in zip(hop.ends, STREAMS, strict=True)]
        for what, where, size in actions:
            if what == "deliver":
                for _ in range(size):
                    hop.lines[where % len(hop.lines)].deliver()
            elif where or hop.opener.opened.done():
                players[where].do(what, size)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for player, what in zip(reversed(players), last, strict=True):
            player.do(what, 0)
            if not hop.opener.opened.done():
                await hop.settle()
        await hop.settle()
        assert hop.ended == [1, 1]
        assert [end.is_over for end in hop.ends] == [True, True]
        assert [player.waits for player in players] == [False, False]
        is_told_the_truth(players[0], players[1])
        is_told_the_truth(players[1], players[0])
        if isinstance(hop, RelayedHop):
            assert hop.relay.over
            assert hop.relay_ended == 1

    with small_windows():
        play(scenario)


@settings(max_examples=250)
@given(actions=actions, dead=st.integers(0, 1), more=actions, last=st.sampled_from(["close", "reset", "read"]))
def test_whoever_is_left_when_the_other_side_dies_is_told_and_told_the_truth(
    actions: list[tuple[str, int, int]], dead: int, more: list[tuple[str, int, int]], last: str
) -> None:
    """At any moment: what it has heard completely was said completely, and it waits for nothing."""

    async def scenario() -> None:
        hop = RelayedHop()
        hop.server.accept()
        hop.deliver_all()
        players = [Player(session, stream) for session, stream in zip(hop.ends, STREAMS, strict=True)]
        survivor, victim = players[1 - dead], players[dead]

        async def act(actions: list[tuple[str, int, int]], *, alive: bool) -> None:
            for what, where, size in actions:
                if what == "deliver":
                    for _ in range(size):
                        hop.lines[where].deliver()
                elif alive or where != dead:
                    players[where].do(what, size)
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        await act(actions, alive=True)
        victim.die()
        towards_relay, towards_victim = (hop.lines[0], hop.lines[3]) if dead == 0 else (hop.lines[2], hop.lines[1])
        while towards_relay.deliver():  # what it had said before counts
            pass
        (hop.relay.opener_gone if dead == 0 else hop.relay.server_gone)()
        assert hop.relay.over
        assert hop.relay_ended == 1
        towards_victim.waiting.clear()
        await act(more, alive=False)
        survivor.do(last, 0)
        await hop.settle()
        if last == "read":  # it reads on until there is an end, and then everything is over
            while survivor.session.bytes_read < victim.session.bytes_written and not survivor.errors:
                survivor.do("read", CHUNK)
                await hop.settle()
        assert not survivor.waits
        assert survivor.session.is_over
        is_told_the_truth(survivor, victim, broken=True)

    with small_windows():
        play(scenario)


def words(line_said: list[Message]) -> list[bytes]:
    return [encode(message) for message in line_said]


def test_one_side_that_wants_no_more_is_obeyed_with_its_own_code() -> None:
    async def scenario() -> None:
        hop = await Hop().opened()
        hop.opener.take(Stop(11), b"")
        hop.opener.take(Stop(12), b"")
        assert words(hop.lines[0].said) == words([Reset(11)])

    async def after_the_end() -> None:
        hop = await Hop().opened()
        await hop.opener.send_eof()
        hop.opener.take(Done(), b"")
        hop.opener.take(Stop(11), b"")
        assert words(hop.lines[0].said) == words([Eof()])

    play(scenario)
    play(after_the_end)


def test_chunks_are_never_larger_than_they_may_be() -> None:
    async def scenario() -> None:
        with small_windows():
            hop = await Hop().opened()
            writing = asyncio.create_task(hop.opener.write(bytes(3 * WINDOW)))
            sizes: list[int] = []
            while not writing.done():
                await a_few_turns()
                sizes += [len(payload) for header, payload in hop.lines[0].waiting if header == encode(Chunk())]
                hop.deliver_all()
                await hop.server.read()
                hop.deliver_all()
            assert sum(sizes) == 3 * WINDOW
            assert max(sizes) == CHUNK
            assert min(sizes) > 0

    play(scenario)
