"""Memory of a session: chunks never cover each other, lie within it, and its size cannot change."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_client.ipc.messages import ErrorReply, MemoryReady, SessionData, SharedData, ShareMemory, WindowUpdate
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import HALF, MORE_CREDIT, SHARE_AFTER, SIZE, WINDOW, SharedMemory
from tests.support.event_loop import run_pending
from tests.support.session_memory import SessionSetup, make_descriptor


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = make_descriptor()
    yield made
    os.close(made)


@given(st.lists(st.tuples(st.integers(1, MAX_CHUNK), st.booleans(), st.integers(0, 4)), max_size=60))
def test_chunks_that_were_not_read_are_never_covered(steps: list[tuple[int, bool, int]]) -> None:
    """Each step writes a chunk of the size, copied or filled in place, and reads so many of those that wait."""
    descriptor = make_descriptor()
    ours, theirs = (SharedMemory(descriptor, is_daemon=is_daemon) for is_daemon in (True, False))
    os.close(descriptor)
    waiting: deque[tuple[int, int, int]] = deque()
    credit = WINDOW
    for number, (size, in_place, read) in enumerate(steps):
        if size + CHUNK_COST <= credit:
            content = bytes([number % 256]) * size
            if in_place:
                room = ours.room(min(MAX_CHUNK, credit - CHUNK_COST))
                room[:size] = content
                start = ours.write(room[:size])
            else:
                start = ours.write(content)
            credit -= size + CHUNK_COST
            waiting.append((start, size, number % 256))
        for _ in range(min(read, len(waiting))):
            start, size, byte = waiting.popleft()
            view = theirs.read(start, size)
            assert view is not None
            assert bytes(view) == bytes([byte]) * size
            credit += size + CHUNK_COST


@pytest.mark.parametrize(
    ("start", "size"),
    [(-1, 1), (0, 0), (0, -1), (0, MAX_CHUNK + 1), (HALF, 1), (HALF - 1, 2), (1 << 80, 1), (0, 1 << 80), (SIZE, SIZE)],
)
def test_a_chunk_outside_of_the_half_is_none(descriptor: int, start: int, size: int) -> None:
    memory = SharedMemory(descriptor, is_daemon=True)
    assert memory.read(start, size) is None
    assert bytes(memory.read(HALF - 1, 1) or b"") == b"\0"


def test_memory_whose_size_can_change_is_not_mapped() -> None:
    for size, seals in ((SIZE, 0), (SIZE, fcntl.F_SEAL_GROW), (SIZE - 1, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)):
        made = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.ftruncate(made, size)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
        with pytest.raises(ValueError, match="size"):
            SharedMemory(made, is_daemon=False)
        os.close(made)


def test_it_is_unmapped_with_its_last_view(descriptor: int) -> None:
    freed: list[bool] = []
    memory = SharedMemory(descriptor, is_daemon=True, on_free=lambda: freed.append(True))
    view = memory.read(0, 1)
    del memory
    assert not freed
    del view
    assert freed == [True]


# ── the session of a program ─────────────────────────────────────────────────────────────────────


async def test_a_session_asks_once_it_has_carried_some_bytes_and_then_uses_the_memory() -> None:
    setup = SessionSetup()
    await setup.carry(SHARE_AFTER)
    assert setup.sent == [ShareMemory()]
    setup.receive(MemoryReady(b"token"))
    await run_pending()
    assert setup.tokens == [b"token"]
    assert setup.sent[1:] == [ShareMemory(is_mapped=True)]
    await setup.session.write(b"x" * 20_000)
    await setup.session.write(b"small")
    shared, plain = setup.sent[2:]
    assert shared == SharedData(0, 20_000)
    assert bytes(setup.daemon.read(0, 20_000) or b"") == b"x" * 20_000
    assert plain == SessionData()
    setup.receive(SharedData(setup.daemon.write(b"y" * 30_000), 30_000))
    setup.receive(SessionData(), b"and more")
    assert await setup.session.read(10_000) == b"y" * 10_000
    assert await setup.session.read_exactly(20_008) == b"y" * 20_000 + b"and more"
    await setup.carry(SHARE_AFTER)
    assert ShareMemory() not in setup.sent[1:], "it asks once"


async def test_memory_brings_credit_for_whole_chunks_in_both_directions() -> None:
    setup = SessionSetup()
    await setup.carry(SHARE_AFTER)
    setup.receive(MemoryReady(b"token"))
    await run_pending()
    setup.sent.clear()
    writing = asyncio.ensure_future(setup.session.write(bytes(20 * MAX_CHUNK)))
    await run_pending()
    assert [message.size for message in setup.sent if isinstance(message, SharedData)] == [MAX_CHUNK] * 6
    setup.receive(WindowUpdate(WINDOW + 1))  # a network process that grants too much
    await run_pending()
    assert len(setup.sent) == 12
    for _ in range(2):
        setup.receive(WindowUpdate(WINDOW))
        await run_pending()
    await writing
    for _ in range(WINDOW // (MAX_CHUNK + CHUNK_COST)):
        setup.receive(SharedData(setup.daemon.write(bytes(MAX_CHUNK)), MAX_CHUNK))
    assert not setup.session.is_over
    setup.receive(SessionData(), b"beyond the window")
    assert isinstance(setup.sent[-1], ErrorReply)


async def test_without_memory_the_credit_stays() -> None:
    setup = SessionSetup(failure=OSError("none"))
    await setup.carry(SHARE_AFTER)
    setup.receive(MemoryReady(b"token"))
    setup.receive(WindowUpdate(MORE_CREDIT))
    await run_pending()
    setup.sent.clear()
    writing = asyncio.ensure_future(setup.session.write(bytes(20 * MAX_CHUNK)))
    await run_pending()
    assert len(setup.sent) == SESSION_WINDOW // MAX_CHUNK
    writing.cancel()


async def test_short_sessions_and_those_without_memory_never_ask() -> None:
    short, without = SessionSetup(), SessionSetup(take=False)
    await short.carry(SHARE_AFTER - 1)
    await without.carry(SHARE_AFTER)
    assert short.sent == without.sent == []


async def test_without_a_descriptor_the_bytes_go_on_over_the_socket() -> None:
    for failure in (OSError("none"), TimeoutError()):
        setup = SessionSetup(failure=failure)
        await setup.carry(SHARE_AFTER)
        setup.receive(MemoryReady(b"token"))
        await run_pending()
        await setup.session.write(b"x" * 20_000)
        assert setup.sent == [ShareMemory(), SessionData()]


async def test_data_before_the_memory_and_outside_of_it_ends_the_session() -> None:
    for is_mapped in (False, True):
        setup = SessionSetup()
        await setup.carry(SHARE_AFTER)
        if is_mapped:
            setup.receive(MemoryReady(b"token"))
            await run_pending()
        setup.receive(SharedData(HALF - 1, 2))
        assert isinstance(setup.sent[-1], ErrorReply)
        assert setup.session.is_over


async def test_a_session_that_ends_while_it_maps_takes_nothing() -> None:
    setup = SessionSetup()
    await setup.carry(SHARE_AFTER)
    setup.receive(MemoryReady(b"token"))
    setup.session.abort(0)
    setup.receive(ErrorReply("connection-lost", {"what": "x"}))
    await run_pending()
    assert ShareMemory(is_mapped=True) not in setup.sent


async def test_an_offer_that_was_not_asked_for_is_ignored() -> None:
    setup = SessionSetup()
    setup.receive(MemoryReady(b"token"))
    await run_pending()
    assert setup.tokens == []
    setup.receive(WindowUpdate(0))
    assert not setup.session.is_over
