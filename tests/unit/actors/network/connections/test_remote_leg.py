"""Remote leg of a session: bytes and ends pass, and no kind of end is taken for another."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import leg_writer
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
from fastn_p2p_client.session.shared_memory import Chunk
from tests.support.event_loop import run_pending
from tests.support.quic_streams import FakeStream, broken


class LegSetup:
    """Remote leg with a fake stream, which records the messages to the relay."""

    def __init__(self, credit: int = SESSION_WINDOW, *, leftover: bytes = b"", attached: bool = True) -> None:
        self.stream = FakeStream()
        self.messages: list[Message] = []
        self.done = asyncio.Event()
        self.data = b""
        self.sent = self.received = 0
        self.pacer = StreamPacer(time.monotonic, lambda: None)
        self.leg = RemoteLeg(self._hear, self._count, self.pacer, credit, early_data=leftover)
        self.leg.start()
        if attached:
            self.leg.attach(self.stream.halves())

    def _hear(self, header: bytes, message: Message, payload: Chunk) -> None:
        assert header == encode(message)
        self.messages.append(message)
        if isinstance(message, Ack):
            self.done.set()
        self.data += bytes(payload)

    def _count(self, sent: int, received: int) -> None:
        self.sent += sent
        self.received += received

    def receive(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.leg.receive(encode(message), message, payload)

    @property
    def end(self) -> str | int | None:
        """Return how the own direction has ended for the peer. A stream that is only dropped would look complete."""
        ends = self.stream.sending.ends
        return ends[0] if ends else None


async def test_chunks_are_written_and_their_credit_comes_back() -> None:
    setup = LegSetup()
    setup.receive(SessionData(), payload=b"one")
    setup.receive(SessionData(), payload=b"two")
    await run_pending()
    assert setup.stream.sending.written == b"onetwo"
    assert sum(message.size for message in setup.messages if isinstance(message, WindowUpdate)) == 6 + 2 * CHUNK_COST
    assert setup.sent == 6
    setup.receive(EndOfStream())
    await run_pending()
    assert setup.end == "finished"
    assert setup.messages[-1] == Ack()
    setup.leg.close()


async def test_credit_comes_back_in_few_messages_and_all_of_it() -> None:
    """Each message wakes the process of the program."""
    setup = LegSetup()
    chunks = SESSION_WINDOW // (MAX_CHUNK + CHUNK_COST)
    for _ in range(chunks):
        setup.receive(SessionData(), payload=bytes(MAX_CHUNK))
    await run_pending()
    assert len(setup.stream.sending.written) == chunks * MAX_CHUNK
    grants = [message.size for message in setup.messages if isinstance(message, WindowUpdate)]
    assert sum(grants) == chunks * (MAX_CHUNK + CHUNK_COST)
    assert len(grants) < chunks
    setup.leg.close()


async def test_large_blocks_are_written_in_small_ones_while_there_are_calls() -> None:
    setup = LegSetup()
    sizes: list[int] = []
    write_all = setup.stream.sending.write_all

    async def note(data: bytes) -> None:
        sizes.append(len(data))
        await write_all(data)

    setup.stream.sending.write_all = note  # type: ignore[method-assign]
    setup.receive(SessionData(), payload=bytes(MAX_CHUNK))
    await run_pending()
    for _ in range(5):
        setup.pacer.on_call()
    setup.receive(SessionData(), payload=bytes(MAX_CHUNK))
    setup.receive(EndOfStream())
    async with asyncio.timeout(50):
        await setup.done.wait()
    assert sizes == [MAX_CHUNK, *[BLOCK] * (MAX_CHUNK // BLOCK)]
    setup.leg.close()


async def test_nothing_more_is_granted_than_quic_has_taken() -> None:
    setup = LegSetup()
    setup.stream.sending.taking.clear()
    setup.receive(SessionData(), payload=b"x" * 1000)
    setup.receive(EndOfStream())
    await run_pending()
    assert setup.messages == []
    setup.stream.sending.taking.set()
    await run_pending()
    assert setup.messages == [WindowUpdate(1000 + CHUNK_COST), Ack()]
    setup.leg.close()


async def test_bytes_are_passed_on_as_far_as_there_is_credit() -> None:
    setup = LegSetup(credit=1000, leftover=b"left")
    setup.stream.receiving.feed(bytes(5000))
    await run_pending()
    assert len(setup.data) + CHUNK_COST * len(setup.messages) <= 1000
    before = len(setup.data)
    assert setup.data[:4] == b"left"
    setup.receive(WindowUpdate(100 + CHUNK_COST))
    await run_pending()
    assert 100 <= len(setup.data) - before <= 100 + CHUNK_COST
    setup.receive(WindowUpdate(SESSION_WINDOW))
    await run_pending()
    assert len(setup.data) == 5004
    assert setup.received == 5000  # of the stream
    setup.stream.receiving.end()
    await run_pending()
    assert setup.messages[-1] == EndOfStream()
    setup.leg.close()


async def test_messages_before_there_is_a_stream_wait_for_it() -> None:
    setup = LegSetup(attached=False)
    setup.receive(SessionData(), payload=b"one")
    setup.receive(SessionData(), payload=b"two")
    setup.receive(EndOfStream())
    setup.leg.close()  # nobody is behind the relay any more: what is complete still arrives
    await run_pending()
    assert setup.messages == []
    setup.leg.attach(setup.stream.halves())
    await run_pending()
    assert (setup.stream.sending.written, setup.end) == (b"onetwo", "finished")
    assert setup.stream.receiving.stopped_with == [RESET_LOST]


@pytest.mark.parametrize(
    "words",
    [(ResetStream(7), StopSending(8)), (StopSending(8), ResetStream(7)), (ResetStream(7), StopSending(8), Cancel())],
)
async def test_a_session_that_ends_before_there_is_a_stream_ends_there(words: tuple[Message, ...]) -> None:
    setup = LegSetup(attached=False)
    setup.receive(SessionData(), payload=b"lost")
    setup.receive(*words)
    setup.leg.attach(setup.stream.halves())
    await run_pending()
    assert (setup.stream.sending.written, setup.end) == (b"", 7)
    assert setup.stream.receiving.stopped_with == [8]
    setup.leg.close()


async def test_the_first_bytes_may_go_another_way() -> None:
    """The call channel takes as many chunks as fit; the rest goes over the stream."""
    setup = LegSetup(attached=False)
    assert setup.leg.first_block(100) == b""
    setup.receive(SessionData(), payload=b"a" * 60)
    setup.receive(SessionData(), payload=b"b" * 40)
    setup.receive(SessionData(), payload=b"c" * 101)
    assert setup.leg.first_block(100) == b"a" * 60 + b"b" * 40
    assert setup.messages == [WindowUpdate(100 + 2 * CHUNK_COST)]
    assert setup.leg.first_block(100) == b""
    setup.leg.attach(setup.stream.halves())
    await run_pending()
    assert setup.stream.sending.written == b"c" * 101
    setup.leg.close()


@pytest.mark.parametrize("rest", [b"", b"rest"])
async def test_the_first_byte_of_a_stream_is_not_delivered(rest: bytes) -> None:
    setup = LegSetup(attached=False)
    setup.stream.receiving.feed(b"\0" + rest)
    setup.leg.attach(setup.stream.halves(), 1)
    await run_pending()
    assert setup.data == rest
    assert EndOfStream() not in setup.messages
    setup.stream.receiving.end()
    await run_pending()
    assert setup.messages[-1] == EndOfStream()
    setup.leg.close()


async def test_a_large_amount_comes_in_chunks_of_the_largest_size() -> None:
    setup = LegSetup()
    setup.stream.receiving.feed(bytes(2 * MAX_CHUNK + 1))
    setup.stream.receiving.end()
    await run_pending()
    assert setup.messages == [SessionData(), SessionData(), SessionData(), EndOfStream()]
    setup.leg.close()


@pytest.mark.parametrize("code", [0, 7, RESET_LOST])
async def test_codes_pass_both_ways(code: int) -> None:
    setup = LegSetup()
    setup.receive(ResetStream(code), StopSending(code))
    await run_pending()
    assert setup.end == code
    assert setup.stream.receiving.stopped_with == [code]
    assert setup.messages == [ResetStream(code)]
    setup.leg.close()
    setup = LegSetup()
    setup.stream.receiving.end(broken(f"Reset({code})"))
    setup.stream.sending.stop_by_peer(code)
    setup.receive(SessionData(), payload=b"x")
    await run_pending()
    assert sorted(setup.messages, key=encode) == [ResetStream(code), StopSending(code)]
    setup.leg.close()


async def test_a_stop_is_noticed_without_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leg_writer, "_WATCH_AFTER", 0)
    setup = LegSetup()
    await asyncio.sleep(0.005)
    setup.stream.sending.stop_by_peer(5)
    await run_pending()
    assert setup.messages == [StopSending(5)]
    setup.receive(ResetStream(5))
    await run_pending()
    assert setup.end == 5
    setup.leg.close()


async def test_a_connection_that_breaks_ends_both_directions() -> None:
    setup = LegSetup()
    setup.stream.receiving.end(broken("ConnectionLost(TimedOut)"))
    await run_pending()
    (failure,) = setup.messages
    assert isinstance(failure, ErrorReply)
    assert isinstance(failure.error(), ConnectionLost)
    assert setup.end == RESET_LOST  # should it be the stream alone that is broken


ABANDONED: dict[str, Callable[[LegSetup], object]] = {
    "closed": lambda setup: setup.leg.close(),
    "failed": lambda setup: setup.receive(ErrorReply.of(ConnectionLost(what="it"))),
    "cancelled": lambda setup: setup.receive(Cancel()),
}


@pytest.mark.parametrize("how", ABANDONED)
@pytest.mark.parametrize("busy", [True, False])
async def test_a_direction_that_is_given_up_never_looks_complete(how: str, busy: bool) -> None:
    setup = LegSetup()
    setup.receive(SessionData(), payload=b"part")
    await run_pending()
    if busy:
        setup.stream.sending.taking.clear()
        setup.receive(SessionData(), payload=b"more")
        await run_pending()
    ABANDONED[how](setup)
    setup.leg.close()
    setup.leg.close()
    await run_pending()
    assert isinstance(setup.end, int)
    assert len(setup.stream.receiving.stopped_with) == 1


@pytest.mark.parametrize("how", ["closed", "failed", "cancelled"])
async def test_a_complete_message_arrives_although_a_side_has_gone(how: str) -> None:
    setup = LegSetup()
    setup.stream.sending.taking.clear()
    setup.receive(SessionData(), payload=b"all of it")
    setup.receive(EndOfStream())
    await run_pending()
    ABANDONED[how](setup)
    setup.leg.close()
    await run_pending()
    assert setup.end is None
    setup.stream.sending.taking.set()
    await run_pending()
    assert setup.stream.sending.written == b"all of it"
    assert setup.end == "finished"


async def test_a_complete_direction_is_given_up_when_the_other_side_wants_no_more() -> None:
    setup = LegSetup()
    setup.stream.sending.taking.clear()
    setup.receive(SessionData(), payload=b"all of it")
    setup.receive(EndOfStream())
    await run_pending()
    setup.receive(ResetStream(3))
    setup.leg.close()
    await run_pending()
    assert setup.end == 3


async def test_a_session_frees_its_memory_without_garbage_collection() -> None:
    setup = LegSetup()
    await run_pending()
    reader = weakref.ref(cast(Any, setup.leg)._reader)
    gc.disable()
    try:
        setup.leg.close()
        await run_pending()
        assert reader() is None, "a cancelled task keeps all that it had at hand"
    finally:
        gc.enable()
