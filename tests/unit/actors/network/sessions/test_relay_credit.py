"""Credit of a session between a local program and a peer: the relay enforces it, and the leg to the peer does not."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator

import pytest

from fastn_p2p_actors.network.connections.remote_leg import RemoteLeg
from fastn_p2p_actors.network.connections.stream_pacing import StreamPacer
from fastn_p2p_actors.network.sessions.relay import SessionRelay
from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.ipc.messages import ErrorReply, Message, SessionData, SessionOpened, encode
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import WINDOW, Chunk, SharedMemory
from tests.support.event_loop import run_pending
from tests.support.quic_streams import FakeStream
from tests.support.session_memory import make_descriptor


@pytest.fixture
def session_memory() -> Iterator[SharedMemory]:
    descriptor = make_descriptor()
    yield SharedMemory(descriptor, is_daemon=True)
    os.close(descriptor)


class _Program:
    """Leg of a local program, which records the messages it gets."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        self.messages.append(message)


class _Session:
    """Relay between a local program and a real remote leg."""

    def __init__(self, opener: str, window: int) -> None:
        self.program = _Program()
        self.stream = FakeStream()
        self.relay = SessionRelay(self.program, SESSION_WINDOW if opener == "program" else window)
        emit = self.relay.from_server if opener == "program" else self.relay.from_opener
        pacer = StreamPacer(time.monotonic, lambda: None)
        self.leg = RemoteLeg(emit, lambda _sent, _received: None, pacer, SESSION_WINDOW)
        if opener == "program":
            self.relay.server = self.leg
            self._send = self.relay.from_opener
        else:
            self.relay.opener, self.relay.server = self.leg, self.program
            self._send = self.relay.from_server
        opened = SessionOpened(SESSION_WINDOW)
        self.relay.from_server(encode(opened), opened, b"")
        self.leg.attach(self.stream.halves())

    def write(self, size: int, *, in_memory: bool = False) -> None:
        payload = bytes(size)
        self._send(encode(SessionData()), SessionData(), memoryview(payload) if in_memory else payload)


@pytest.mark.parametrize("opener", ["program", "peer"])
async def test_a_session_with_memory_may_have_its_larger_window_on_the_way(
    opener: str, session_memory: SharedMemory
) -> None:
    chunks = WINDOW // (MAX_CHUNK + CHUNK_COST)
    session = _Session(opener, SESSION_WINDOW)
    session.stream.sending.taking.clear()
    session.relay.on_memory_mapped()
    session.leg.share(session_memory)
    for _ in range(chunks):
        session.write(MAX_CHUNK, in_memory=True)
    assert session.leg.queued == WINDOW
    assert session.leg.held == chunks * CHUNK_COST, "shared memory does not count for the peer"
    session.stream.receiving.feed(bytes(2 * WINDOW))
    await run_pending()
    assert not session.relay.done
    assert sum(isinstance(message, SessionData) for message in session.program.messages) == chunks
    session.write(1)
    assert session.relay.done
    await run_pending()


@pytest.mark.parametrize(("opener", "window"), [("program", SESSION_WINDOW), ("peer", SESSION_WINDOW), ("peer", 4096)])
@pytest.mark.parametrize("seed", range(20))
async def test_the_relay_refuses_every_chunk_beyond_the_window_of_a_remote_leg(
    opener: str, window: int, seed: int
) -> None:
    session = _Session(opener, window)
    randomness = random.Random(seed)
    leg = session.leg
    for step in itertools.count():
        if session.relay.done:
            break
        if step < 30 and randomness.random() < 0.5:  # then the stream writes no more, and the window fills
            await run_pending()
        size = randomness.randint(1, min(window // 3, MAX_CHUNK))
        before = leg.queued
        session.write(size)
        if before + size + CHUNK_COST <= window:
            assert not session.relay.done
            assert leg.queued == before + size + CHUNK_COST
        else:
            assert leg.queued == before, "the leg did not get it"
    failure = session.program.messages[-1]
    assert isinstance(failure, ErrorReply)
    assert isinstance(failure.error(), BadMessage)
    await run_pending()
    assert isinstance(session.stream.sending.ends[0], int), "the peer does not take it for complete"


@pytest.mark.parametrize(("opener", "window"), [("program", SESSION_WINDOW), ("peer", 4096)])
async def test_a_window_can_be_used_again_once_it_is_written(opener: str, window: int) -> None:
    session = _Session(opener, window)
    for _ in range(5):
        for size in (window // 2 - CHUNK_COST, window - window // 2 - CHUNK_COST):
            session.write(size)
        assert session.leg.queued == window
        for _ in range(3):
            await run_pending()
        assert session.leg.queued == 0
    assert not session.relay.done
    session.leg.close()
