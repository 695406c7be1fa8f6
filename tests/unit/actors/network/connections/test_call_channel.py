"""Call channel over real QUIC: order, turns, pauses and ends, with a connection that notes what happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from iroh.iroh_ffi import BiStream, IrohError

from fastn_p2p_actors.network.connections import call_channel
from fastn_p2p_actors.network.connections.call_channel import MAX_QUEUED, CallChannel
from fastn_p2p_actors.network.connections.overload_pause import OverloadPause
from fastn_p2p_actors.network.connections.payload_memory import Account, Budget
from fastn_p2p_actors.network.connections.step_budget import ConnectionSteps, StepBudget
from fastn_p2p_actors.network.transport import iroh_patches
from fastn_p2p_actors.network.transport.stream_calls import read, write_all
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import FrameDecoder, encode_frame
from fastn_p2p_client.errors import Overloaded
from tests.support.quic_pair import Pair, connected_pair

DEADLINE: Final = 60
HELLO: Final = encode_frame(wire.Hello(1, b"12345678", 1, 1))


class StubMemory:
    def __init__(self) -> None:
        self.checks = 0

    def check_soon(self) -> None:
        self.checks += 1


class StubConnection:
    """Connection that notes its frames. Requests of a known peer are not paused.

    Attributes:
        on_frame: called for each frame.
        arrived: set at each frame.
    """

    def __init__(self, *, known: bool = True) -> None:
        self.remote_process = b"process1"
        self.sent = self.received = 0
        self.budget = StepBudget(asyncio.get_running_loop())
        self.steps = ConnectionSteps(self.budget, lambda: known, asyncio.get_running_loop())
        self.pause = OverloadPause()
        self.memory = StubMemory()
        self.name = "the peer"
        self.abuse = 0.0
        self.closed: list[str] = []
        self.frames: list[tuple[wire.WireMessage, bytes]] = []
        self.on_frame: Callable[[wire.WireMessage], object] = lambda _message: None
        self.arrived = asyncio.Event()

    def close(self, code: int, reason: str) -> None:
        self.closed.append(reason)
        self.arrived.set()

    def fail(self, error: IrohError) -> None:
        self.closed.append(error.message())
        self.arrived.set()

    def count_abuse(self, tokens: float) -> None:
        self.abuse += tokens

    def count(self, sent: int, received: int) -> None:
        self.sent += sent
        self.received += received

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        self.frames.append((message, payload))
        self.arrived.set()
        self.on_frame(message)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after each frame, and after a close."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.arrived.clear()
                await self.arrived.wait()


class Ends:
    """A channel on our end of a stream, and the peer's end."""

    def __init__(self, near: BiStream, far: BiStream, connection: StubConnection) -> None:
        self.connection = connection
        self.account = Account(Budget("strangers", 1 << 40))
        self.channel = CallChannel(connection, self.account)
        self.channel.start(near.send(), near.recv())
        self.sending, self.receiving = far.send(), far.recv()

    async def send(self, *frames: bytes) -> None:
        """Send frames as the peer, all at once."""
        await write_all(self.sending, b"".join(frames))


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    iroh_patches.install(asyncio.get_running_loop())
    async with connected_pair() as connected:
        yield connected


@pytest.fixture
async def ends(pair: Pair) -> AsyncIterator[Ends]:
    made = Ends(*await pair.stream(), StubConnection())
    yield made
    made.channel.stop()


@pytest.fixture
async def stranger(pair: Pair) -> AsyncIterator[Ends]:
    made = Ends(*await pair.stream(), StubConnection(known=False))
    yield made
    made.channel.stop()


def numbered(number: int, size: int = 0) -> bytes:
    return encode_frame(wire.Cancel(number), bytes(size))


def numbers(connection: StubConnection) -> list[int]:
    return [message.id for message, _ in connection.frames if isinstance(message, wire.Cancel)]


class Iterations:
    """Counts the iterations of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.count += 1
        self._next = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._next.cancel()


async def test_frames_are_handled_in_order_however_they_are_split(ends: Ends) -> None:
    data = b"".join(numbered(number, number % 700) for number in range(500))
    for start in range(0, len(data), 9973):
        await ends.send(data[start : start + 9973])
    await ends.connection.until(lambda: len(ends.connection.frames) == 500)
    assert numbers(ends.connection) == list(range(500))
    assert [len(payload) for _, payload in ends.connection.frames] == [number % 700 for number in range(500)]
    assert ends.connection.received == len(data)


async def test_other_work_runs_between_bursts_of_frames(ends: Ends) -> None:
    """Also frames of a known peer are handled at most 32 in a row."""
    iterations = Iterations()
    seen: list[int] = []
    ends.connection.on_frame = lambda _message: seen.append(iterations.count)
    await ends.send(*map(numbered, range(200)))
    await ends.connection.until(lambda: len(seen) == 200)
    iterations.stop()
    assert max(seen.count(iteration) for iteration in seen) <= 2 * call_channel._BURST
    assert len(set(seen)) >= 200 // (2 * call_channel._BURST)


async def test_other_work_runs_after_each_signature_that_is_checked(ends: Ends) -> None:
    iterations = Iterations()
    seen: list[int] = []
    ends.connection.on_frame = lambda _message: seen.append(iterations.count)
    await ends.send(*[encode_frame(wire.Introduce(b"delegation"))] * 20)
    await ends.connection.until(lambda: len(seen) == 20)
    iterations.stop()
    assert len(set(seen)) == 20


async def test_frames_of_a_stranger_take_turns_and_keep_their_order(stranger: Ends) -> None:
    """The budget bounds how many are handled in an iteration."""
    iterations = Iterations()
    seen: list[int] = []
    stranger.connection.on_frame = lambda _message: seen.append(iterations.count)
    await stranger.send(*map(numbered, range(300)))
    await stranger.connection.until(lambda: len(seen) == 300)
    iterations.stop()
    assert numbers(stranger.connection) == list(range(300))
    assert max(seen.count(iteration) for iteration in seen) < 100


async def test_a_channel_that_ends_while_a_frame_waits_for_its_turn_handles_no_more(stranger: Ends) -> None:
    connection = stranger.connection
    await stranger.send(*map(numbered, range(300)))
    await connection.until(lambda: connection.steps.has_waiting or len(connection.frames) > 250)
    assert connection.steps.has_waiting
    stranger.channel.stop()
    handled = len(connection.frames)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(connection.frames) == handled
    assert not connection.closed


async def test_a_channel_that_ends_in_a_handler_handles_no_more(ends: Ends) -> None:
    ends.connection.on_frame = lambda _message: ends.channel.stop()
    await ends.send(*map(numbered, range(50)))
    await ends.connection.until(lambda: bool(ends.connection.frames))
    for _ in range(20):
        await asyncio.sleep(0)
    assert numbers(ends.connection) == [0]
    assert not ends.connection.closed


async def test_reading_pauses_after_a_request_above_a_limit(ends: Ends) -> None:
    """The frames that were read are handled, and the next read waits for the end of the pause."""
    connection = ends.connection
    connection.on_frame = lambda _message: connection.pause.on_overload()
    await ends.send(numbered(0))
    await connection.until(lambda: len(connection.frames) == 1)
    connection.on_frame = lambda _message: None
    await ends.send(numbered(1))
    await connection.until(lambda: len(connection.frames) == 2)
    assert numbers(connection) == [0, 1]
    assert connection.pause.begin() == 0, "the pause is over"


async def test_a_channel_that_ends_in_a_pause_reads_no_more(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = ends.connection
    connection.on_frame = lambda _message: connection.pause.on_overload()
    began = asyncio.Event()
    real = connection.pause.begin

    def begin() -> float:
        began.set()
        return real()

    monkeypatch.setattr(OverloadPause, "begin", lambda _pause: begin())
    await ends.send(numbered(0))
    await connection.until(lambda: len(connection.frames) == 1)
    async with asyncio.timeout(DEADLINE):
        await began.wait()
    ends.channel.stop()
    await ends.send(numbered(1))
    await asyncio.sleep(2 * connection.pause.seconds)
    assert numbers(connection) == [0]


async def test_queued_frames_arrive_in_order_when_the_peer_reads_at_last(ends: Ends) -> None:
    """QUIC accepts no more for a while. Then memory and requests are released to the last byte."""
    channel = ends.channel
    frames = [numbered(number, 60_000) for number in range(100)]
    for frame in frames:
        channel.write_request(frame)
        await asyncio.sleep(0)
    assert channel.queued > 0
    assert ends.account.bytes > 0
    data = b""
    async with asyncio.timeout(DEADLINE):
        while len(data) < sum(map(len, frames)):
            data += await read(ends.receiving, 1 << 20)
        while channel.queued:  # noqa: ASYNC110  (the channel has no event for it)
            await asyncio.sleep(0)
    assert [message.id for message, _ in FrameDecoder(1 << 20).feed(data) if isinstance(message, wire.Cancel)] == [
        *range(100)
    ]
    assert (channel.queued, ends.account.bytes, ends.connection.sent) == (0, 0, len(data))


async def test_ending_releases_the_requests_that_wait(ends: Ends) -> None:
    for number in range(100):
        ends.channel.write_request(numbered(number, 60_000))
        await asyncio.sleep(0)
    assert ends.account.bytes > 0
    ends.channel.stop()
    ends.channel.stop()
    ends.channel.write(numbered(1))
    assert ends.account.bytes == 0


async def test_a_peer_that_reads_nothing_gets_no_more_requests_and_is_closed_at_twice_the_limit(ends: Ends) -> None:
    channel = ends.channel
    frame = numbered(0, 4 << 20)
    while channel.queued <= MAX_QUEUED:
        channel.write(frame)
    with pytest.raises(Overloaded):
        channel.check_queue(1, 0)
    assert ends.connection.memory.checks > 0
    assert not ends.connection.closed
    while channel.queued <= 2 * MAX_QUEUED:
        channel.write(frame)
    assert ends.connection.closed == ["the peer does not read what it is sent"]


def finish(ends: Ends) -> Any:
    return ends.sending.finish()


def reset(ends: Ends) -> Any:
    return ends.sending.reset(7)


VIOLATIONS: Final[dict[str, tuple[Callable[[Ends], Any], str]]] = {
    "no message": (lambda ends: ends.send(b"\0\3\0\0\0\0abc"), "bad-message"),
    "a payload above the limit": (lambda ends: ends.send(b"\0\1\xff\xff\xff\xff"), "payload-too-large"),
    "the end of the channel": (finish, "bad-message"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_peer_that_violates_the_protocol_is_closed_and_counted(ends: Ends, violation: str) -> None:
    """Frames before it are handled."""
    act, reason = VIOLATIONS[violation]
    await ends.send(numbered(0))
    await act(ends)
    await ends.connection.until(lambda: bool(ends.connection.closed))
    assert numbers(ends.connection) == [0]
    assert ends.connection.closed == [reason]
    assert ends.connection.abuse > 0


async def test_a_reset_of_the_channel_closes_without_a_penalty(ends: Ends) -> None:
    await ends.send(numbered(0))
    await reset(ends)
    await ends.connection.until(lambda: bool(ends.connection.closed))
    assert ends.connection.abuse == 0


async def test_the_first_frame_must_be_a_hello(ends: Ends) -> None:
    ends.connection.remote_process = b""
    await ends.send(numbered(0))
    await ends.connection.until(lambda: bool(ends.connection.closed))
    assert ends.connection.frames == []


async def test_frames_after_a_hello_in_one_read_see_the_process_that_it_names(ends: Ends) -> None:
    connection = ends.connection
    connection.remote_process = b""

    def on_frame(message: wire.WireMessage) -> None:
        if isinstance(message, wire.Hello):
            connection.remote_process = message.process

    connection.on_frame = on_frame
    await ends.send(HELLO, numbered(1))
    await connection.until(lambda: len(connection.frames) == 2 or bool(connection.closed))
    assert not connection.closed


async def test_an_internal_error_closes_the_connection_without_a_penalty(ends: Ends) -> None:
    def fail(_message: wire.WireMessage) -> None:
        raise ZeroDivisionError

    ends.connection.on_frame = fail
    await ends.send(*map(numbered, range(3)))
    await ends.connection.until(lambda: bool(ends.connection.closed))
    assert (ends.connection.closed, ends.connection.abuse) == (["internal error"], 0)
