"""Remote leg of a session: bytes and ends pass, and no kind of end is taken for another."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import remote_leg
from fastn_p2p_actors.network.connections.remote_leg import RemoteLeg
from fastn_p2p_actors.network.connections.stream_pacing import BLOCK, StreamPacer
from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import (
    Ack,
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, RESET_LOST, SESSION_WINDOW
from tests.support.quic_streams import FakeStream, broken
from tests.support.scenario import a_few_turns


class Bench:
    """Remote leg with a fake stream, which records the messages to the relay."""

    def __init__(self, credit: int = SESSION_WINDOW, *, leftover: bytes = b"", attached: bool = True) -> None:
        self.stream = FakeStream()
        self.said: list[Message] = []
        self.done = asyncio.Event()
        self.heard = b""
        self.sent = self.received = 0
        self.pacer = StreamPacer(time.monotonic, lambda: None)
        self.leg = RemoteLeg(self._hear, self._count, self.pacer, credit, early_data=leftover)
        self.leg.start()
        if attached:
            self.leg.attach(self.stream.halves())

    def _hear(self, header: bytes, message: Message, payload: bytes) -> None:
        assert header == encode(message)
        self.said.append(message)
        if isinstance(message, Ack):
            self.done.set()
        self.heard += payload

    def _count(self, sent: int, received: int) -> None:
        self.sent += sent
        self.received += received

    def take(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.leg.take(encode(message), message, payload)

    @property
    def end(self) -> str | int | None:
        """Return how the own direction has ended for the peer. A stream that is only dropped would look complete."""
        ends = self.stream.sending.ends
        return ends[0] if ends else None


async def test_chunks_are_written_and_their_credit_comes_back() -> None:
    bench = Bench()
    bench.take(SessionData(), payload=b"one")
    bench.take(SessionData(), payload=b"two")
    await a_few_turns()
    assert bench.stream.sending.written == b"onetwo"
    assert sum(message.size for message in bench.said if isinstance(message, WindowUpdate)) == 6 + 2 * CHUNK_COST
    assert bench.sent == 6
    bench.take(EndOfStream())
    await a_few_turns()
    assert bench.end == "finished"
    assert bench.said[-1] == Ack()
    bench.leg.close()


async def test_large_blocks_are_written_in_small_ones_while_there_are_calls() -> None:
    bench = Bench()
    sizes: list[int] = []
    write_all = bench.stream.sending.write_all

    async def note(data: bytes) -> None:
        sizes.append(len(data))
        await write_all(data)

    bench.stream.sending.write_all = note  # type: ignore[method-assign]
    bench.take(SessionData(), payload=bytes(MAX_CHUNK))
    await a_few_turns()
    for _ in range(5):
        bench.pacer.on_call()
    bench.take(SessionData(), payload=bytes(MAX_CHUNK))
    bench.take(EndOfStream())
    async with asyncio.timeout(5):
        await bench.done.wait()
    assert sizes == [MAX_CHUNK, *[BLOCK] * (MAX_CHUNK // BLOCK)]
    bench.leg.close()


async def test_nothing_more_is_granted_than_quic_has_taken() -> None:
    bench = Bench()
    bench.stream.sending.taking.clear()
    bench.take(SessionData(), payload=b"x" * 1000)
    bench.take(EndOfStream())
    await a_few_turns()
    assert bench.said == []
    bench.stream.sending.taking.set()
    await a_few_turns()
    assert bench.said == [WindowUpdate(1000 + CHUNK_COST), Ack()]
    bench.leg.close()


async def test_what_comes_is_passed_on_as_far_as_there_is_credit() -> None:
    bench = Bench(credit=1000, leftover=b"left")
    bench.stream.receiving.feed(bytes(5000))
    await a_few_turns()
    assert len(bench.heard) + CHUNK_COST * len(bench.said) <= 1000
    before = len(bench.heard)
    assert bench.heard[:4] == b"left"
    bench.take(WindowUpdate(100 + CHUNK_COST))
    await a_few_turns()
    assert 100 <= len(bench.heard) - before <= 100 + CHUNK_COST
    bench.take(WindowUpdate(SESSION_WINDOW))
    await a_few_turns()
    assert len(bench.heard) == 5004
    assert bench.received == 5000  # of the stream
    bench.stream.receiving.end()
    await a_few_turns()
    assert bench.said[-1] == EndOfStream()
    bench.leg.close()


async def test_what_is_said_before_there_is_a_stream_waits_for_it() -> None:
    bench = Bench(attached=False)
    bench.take(SessionData(), payload=b"one")
    bench.take(SessionData(), payload=b"two")
    bench.take(EndOfStream())
    bench.leg.close()  # nobody is behind the relay any more: what is complete still arrives
    await a_few_turns()
    assert bench.said == []
    bench.leg.attach(bench.stream.halves())
    await a_few_turns()
    assert (bench.stream.sending.written, bench.end) == (b"onetwo", "finished")
    assert bench.stream.receiving.stopped_with == [RESET_LOST]


@pytest.mark.parametrize(
    "words",
    [(ResetStream(7), StopSending(8)), (StopSending(8), ResetStream(7)), (ResetStream(7), StopSending(8), Cancel())],
)
async def test_what_ends_before_there_is_a_stream_ends_there(words: tuple[Message, ...]) -> None:
    bench = Bench(attached=False)
    bench.take(SessionData(), payload=b"lost")
    bench.take(*words)
    bench.leg.attach(bench.stream.halves())
    await a_few_turns()
    assert (bench.stream.sending.written, bench.end) == (b"", 7)
    assert bench.stream.receiving.stopped_with == [8]
    bench.leg.close()


async def test_the_first_bytes_may_go_another_way() -> None:
    """As many chunks as fit; the rest goes over the stream."""
    bench = Bench(attached=False)
    assert bench.leg.first_block(100) == b""
    bench.take(SessionData(), payload=b"a" * 60)
    bench.take(SessionData(), payload=b"b" * 40)
    bench.take(SessionData(), payload=b"c" * 101)
    assert bench.leg.first_block(100) == b"a" * 60 + b"b" * 40
    assert bench.said == [WindowUpdate(100 + 2 * CHUNK_COST)]
    assert bench.leg.first_block(100) == b""
    bench.leg.attach(bench.stream.halves())
    await a_few_turns()
    assert bench.stream.sending.written == b"c" * 101
    bench.leg.close()


@pytest.mark.parametrize("rest", [b"", b"rest"])
async def test_the_first_byte_of_a_stream_is_nobody_s(rest: bytes) -> None:
    bench = Bench(attached=False)
    bench.stream.receiving.feed(b"\0" + rest)
    bench.leg.attach(bench.stream.halves(), 1)
    await a_few_turns()
    assert bench.heard == rest
    assert EndOfStream() not in bench.said
    bench.stream.receiving.end()
    await a_few_turns()
    assert bench.said[-1] == EndOfStream()
    bench.leg.close()


async def test_a_large_amount_comes_in_chunks_of_the_largest_size() -> None:
    bench = Bench()
    bench.stream.receiving.feed(bytes(2 * MAX_CHUNK + 1))
    bench.stream.receiving.end()
    await a_few_turns()
    assert bench.said == [SessionData(), SessionData(), SessionData(), EndOfStream()]
    bench.leg.close()


@pytest.mark.parametrize("code", [0, 7, RESET_LOST])
async def test_codes_pass_both_ways(code: int) -> None:
    bench = Bench()
    bench.take(ResetStream(code), StopSending(code))
    await a_few_turns()
    assert bench.end == code
    assert bench.stream.receiving.stopped_with == [code]
    assert bench.said == [ResetStream(code)]
    bench.leg.close()
    bench = Bench()
    bench.stream.receiving.end(broken(f"Reset({code})"))
    bench.stream.sending.stop_by_peer(code)
    bench.take(SessionData(), payload=b"x")
    await a_few_turns()
    assert sorted(bench.said, key=encode) == [ResetStream(code), StopSending(code)]
    bench.leg.close()


async def test_a_stop_is_noticed_without_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_leg, "_WATCH_AFTER", 0)
    bench = Bench()
    await asyncio.sleep(0.005)
    bench.stream.sending.stop_by_peer(5)
    await a_few_turns()
    assert bench.said == [StopSending(5)]
    bench.take(ResetStream(5))
    await a_few_turns()
    assert bench.end == 5
    bench.leg.close()


async def test_a_connection_that_breaks_ends_both_directions() -> None:
    bench = Bench()
    bench.stream.receiving.end(broken("ConnectionLost(TimedOut)"))
    await a_few_turns()
    (failure,) = bench.said
    assert isinstance(failure, ErrorReply)
    assert isinstance(failure.error(), ConnectionLost)
    assert bench.end == RESET_LOST  # should it be the stream alone that is broken


ABANDONED: dict[str, Callable[[Bench], object]] = {
    "closed": lambda bench: bench.leg.close(),
    "failed": lambda bench: bench.take(ErrorReply.of(ConnectionLost(what="it"))),
    "cancelled": lambda bench: bench.take(Cancel()),
}


@pytest.mark.parametrize("how", ABANDONED)
@pytest.mark.parametrize("busy", [True, False])
async def test_a_direction_that_is_given_up_never_looks_complete(how: str, busy: bool) -> None:
    bench = Bench()
    bench.take(SessionData(), payload=b"part")
    await a_few_turns()
    if busy:
        bench.stream.sending.taking.clear()
        bench.take(SessionData(), payload=b"more")
        await a_few_turns()
    ABANDONED[how](bench)
    bench.leg.close()
    bench.leg.close()
    await a_few_turns()
    assert isinstance(bench.end, int)
    assert len(bench.stream.receiving.stopped_with) == 1


@pytest.mark.parametrize("how", ["closed", "failed", "cancelled"])
async def test_what_is_complete_still_arrives_whoever_goes(how: str) -> None:
    bench = Bench()
    bench.stream.sending.taking.clear()
    bench.take(SessionData(), payload=b"all of it")
    bench.take(EndOfStream())
    await a_few_turns()
    ABANDONED[how](bench)
    bench.leg.close()
    await a_few_turns()
    assert bench.end is None
    bench.stream.sending.taking.set()
    await a_few_turns()
    assert bench.stream.sending.written == b"all of it"
    assert bench.end == "finished"


async def test_what_is_complete_is_given_up_when_the_other_side_wants_no_more() -> None:
    bench = Bench()
    bench.stream.sending.taking.clear()
    bench.take(SessionData(), payload=b"all of it")
    bench.take(EndOfStream())
    await a_few_turns()
    bench.take(ResetStream(3))
    bench.leg.close()
    await a_few_turns()
    assert bench.end == 3


async def test_what_a_session_held_goes_with_it_and_waits_for_no_garbage_collection() -> None:
    bench = Bench()
    await a_few_turns()
    reader = weakref.ref(cast(Any, bench.leg)._reader)
    gc.disable()
    try:
        bench.leg.close()
        await a_few_turns()
        assert reader() is None, "a cancelled task keeps all that it had at hand"
    finally:
        gc.enable()
