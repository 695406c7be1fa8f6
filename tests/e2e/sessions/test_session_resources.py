"""Sessions take a bounded amount of memory, for any amount of data, and nothing after their end."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest

from fastn_p2p_client import ApplicationError, Client, P2PError, Session
from tests.support.processes import open_files, resident
from tests.support.protocols import BLOCK
from tests.support.sessions import count_sessions, fill
from tests.support.two_daemons import TwoDaemons, start_two_daemons, until

MIB: Final = 1024 * 1024
GROWTH: Final = 32 * MIB
"""Bytes by which no process may grow, for any amount of data."""
LEAK: Final = 8 * MIB
"""Bytes that may remain after sessions that filled their windows, because allocators keep some."""
PASSED: Final = 96 * MIB
"""Each way."""
SESSIONS: Final = 4_000
WARM: Final = 1_000
"""Sessions before the first measurement."""
LEAK_OF_A_SESSION: Final = 900
"""Bytes that may remain for each session after that. Measured: 100 to 300, less the more sessions there are."""
KEPT_FILES: Final = 128
"""Descriptors that a network process may keep: the eventfds of as many waits of 32 sessions as ever came together."""
INTERVAL: Final = 0.1
"""Seconds between two samples."""


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """Daemons of its own, because what other tests did to the processes would count."""
    with start_two_daemons() as daemons:
        yield daemons


def processes(daemons: TwoDaemons) -> dict[str, int]:
    """Return the processes that a session passes through, and those that it does not concern."""
    pids = {"the program": os.getpid()}
    for name, daemon in (("one", daemons.one), ("two", daemons.two)):
        pids |= {f"{name}'s {actor}": pid for actor, pid in daemon.pids().items()}
    return pids


def sizes(daemons: TwoDaemons) -> dict[str, int]:
    gc.collect()
    return {name: resident(pid) for name, pid in processes(daemons).items()}


@asynccontextmanager
async def within(daemons: TwoDaemons, bound: int) -> AsyncIterator[None]:
    """In no sample that is taken inside has a process grown by more than ``bound``."""
    before, most = sizes(daemons), dict[str, int]()
    over = asyncio.Event()

    async def sample() -> None:
        while not over.is_set():
            for name, size in (await asyncio.to_thread(sizes, daemons)).items():
                most[name] = max(most.get(name, 0), size - before[name])
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), INTERVAL)

    sampling = asyncio.create_task(sample())
    try:
        yield
    finally:
        over.set()
        await sampling
    print({name: f"{growth / MIB:.1f} MiB" for name, growth in most.items()})
    assert most
    assert not {name: growth for name, growth in most.items() if growth > bound}


async def pour(session: Session, size: int) -> None:
    left = size
    while left > 0:
        await session.write(BLOCK)
        left -= len(BLOCK)
    await session.send_eof()


async def drain(session: Session) -> int:
    while await session.read():
        pass
    return session.bytes_read


@pytest.mark.parametrize("where", ["far", "near"])
async def test_however_much_passes_no_process_grows(daemons: TwoDaemons, where: str, client: Client) -> None:
    peer = daemons.bob if where == "far" else daemons.alice

    async def pass_through(size: int) -> None:
        session = await client.connect("alice", peer, "Trial", initial={"do": "echo"})
        async with session:
            _, count = await asyncio.gather(pour(session, size), drain(session))
            assert count == size

    await pass_through(8 * MIB)  # what is needed at all is there
    async with within(daemons, GROWTH):
        await pass_through(PASSED)


async def test_readers_that_stall_cost_a_window_each_and_give_it_back(daemons: TwoDaemons, client: Client) -> None:
    """In both directions, far and near."""

    async def stall() -> None:
        sessions = [
            await client.connect("alice", peer, "Trial", initial={"do": "hold"})
            for peer in (daemons.bob, daemons.alice)
        ]
        for session in sessions:
            assert await fill(session) < 6 * MIB
        for session in sessions:
            session.reset()

    async with within(daemons, GROWTH):
        await stall()
    async with within(daemons, LEAK):  # a second time it is the same memory
        await stall()


async def test_thousands_of_sessions_leave_nothing(daemons: TwoDaemons) -> None:
    """Sessions of every kind and end leave no session, no stream, no file and no memory."""
    orders: list[dict[str, Any]] = [
        {"do": "who"},
        {"do": "send", "size": 1000},
        {"do": "echo"},
        {"do": "ignore"},
        {"do": "refuse"},
        {"do": "reset", "code": 5},
        {"do": "fail"},
        {"do": 7},
    ]

    async def one(client: Client, number: int) -> None:
        peer = daemons.alice if number % 5 == 0 else daemons.bob
        order = orders[number % len(orders)]
        try:
            async with asyncio.timeout(60), await client.connect("alice", peer, "Trial", initial=order) as session:
                if order["do"] in ("echo", "reset", "fail"):
                    await session.write(b"x")
                if number % 3 == 0:
                    await drain(session) if order["do"] != "echo" else await session.read()
                elif number % 3 == 1:
                    session.reset(number % 7)
        except (P2PError, ApplicationError):
            return

    async def many(client: Client, numbers: Iterator[int], count: int) -> None:
        async def some() -> None:
            for _ in range(count // 32):
                await one(client, next(numbers))

        await asyncio.gather(*(some() for _ in range(32)))
        for _ in range(count % 32):
            await one(client, next(numbers))
        await until(lambda: count_sessions(daemons) == 0, "no session is left")
        await until(lambda: len(client._sessions) == 0, "the program has heard of the end of each")

    def held() -> dict[str, tuple[int, int]]:
        gc.collect()
        return {name: (open_files(pid), resident(pid)) for name, pid in processes(daemons).items()}

    async def talk(client: Client) -> None:
        async with asyncio.timeout(240):
            numbers = iter(range(SESSIONS))
            await many(client, numbers, WARM)
            before = held()
            await many(client, numbers, SESSIONS - WARM)
        after = held()
        assert next(numbers, None) is None
        for name, (files, memory) in after.items():
            print(f"{name}: {before[name][0]} → {files} files, {before[name][1] >> 10} → {memory >> 10} KiB")
        assert not {name: files for name, (files, _) in after.items() if files > before[name][0] + KEPT_FILES}
        leak = LEAK_OF_A_SESSION * (SESSIONS - WARM)
        assert not {name: size for name, (_, size) in after.items() if size > before[name][1] + leak}

    async with Client(daemons.one.home, program="tests") as client:
        await talk(client)
