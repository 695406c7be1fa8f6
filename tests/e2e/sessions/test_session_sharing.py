"""Memory that a session shares with the network process: the bytes are the same, and it is gone with the session."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
import pytest

import fastn_p2p_client.errors as e
from fastn_p2p_actors.network.sessions.memory_sharing import MAX_SHARED_OF_PROCESS
from fastn_p2p_client import Client, Session
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.descriptors import receive_descriptor
from fastn_p2p_client.ipc.transport.base import TRANSPORTS, TransportName
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import HALF, SHARE_AFTER, WINDOW, SharedMemory
from tests.support.daemons import eventually
from tests.support.processes import child, open_files, shared_memories
from tests.support.raw_connections import Raw
from tests.support.sessions import connected, count_sessions, outcome, read_all
from tests.support.two_daemons import TwoDaemons, until

MIB: Final = 1024 * 1024
BULK: Final = random.Random(1).randbytes(3 * MIB + 12_345)
_READY: Final = 84
_FAILURE: Final = 0

PROGRAM: Final = """
import asyncio, sys
from fastn_p2p_client import Client
async def main():
    async with Client(program="tests") as client:
        session = await client.connect("alice", sys.argv[1], "Trial", initial={"do": "echo"})
        while "/memfd:fastn-p2p-session" not in open("/proc/self/maps").read():
            await session.write(bytes(100_000))
            await session.read_exactly(100_000)
        await session.write(bytes(200_000))
        print("shared", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def mapped(daemons: TwoDaemons) -> tuple[int, int, int, int]:
    """Return how many memories this program, both network processes and bob's process have mapped."""
    pids = (os.getpid(), daemons.one.pid("network"), daemons.two.pid("network"), daemons.two.pid("identity-bob"))
    one, two, three, four = map(shared_memories, pids)
    return one, two, three, four


@pytest.fixture(autouse=True)
def assert_no_memory_left(daemons: TwoDaemons) -> Iterator[None]:
    """No process has mapped memory once the test has ended."""
    yield
    eventually(lambda: mapped(daemons) == (0, 0, 0, 0), "no memory is left")


async def echo(session: Session, data: bytes) -> bytes:
    """Send the bytes, and return as many."""
    writing = asyncio.create_task(session.write(data))
    received = await session.read_exactly(len(data))
    await writing
    return received


async def share(session: Session, daemons: TwoDaemons) -> None:
    """Use the session until both of its sides share memory."""
    while mapped(daemons) != (1, 1, 1, 1):
        await echo(session, BULK[:200_000])


@pytest.mark.parametrize("transport_of_client", TRANSPORTS)
async def test_bytes_are_the_same_in_both_directions(daemons: TwoDaemons, transport_of_client: TransportName) -> None:
    async with Client(daemons.one.home, program="tests", transport=transport_of_client) as client:
        async with connected(client, daemons.bob) as session:
            await share(session, daemons)
            assert await echo(session, BULK) == BULK
            assert mapped(daemons) == (1, 1, 1, 1)
            await session.write(BULK[:300_000])
            await session.send_eof()
            assert await session.read_exactly(300_000) == BULK[:300_000]
            assert await session.read() == b""
        await until(lambda: mapped(daemons) == (0, 0, 0, 0), "the memory ends with the session")


async def test_bytes_that_came_before_the_end_are_read_after_it(daemons: TwoDaemons, client: Client) -> None:
    """The session has ended and is not read yet: its memory stays until it is."""
    async with connected(client, daemons.bob) as session:
        await share(session, daemons)
        await session.write(BULK[:500_000])
        await session.send_eof()
        await until(lambda: session._complete and count_sessions(daemons) == 0, "both directions have ended")
        assert shared_memories(os.getpid()) == 1
        assert await session.read_exactly(500_000) == BULK[:500_000]
        assert shared_memories(os.getpid()) == 0


async def test_a_session_inside_one_daemon_has_none(daemons: TwoDaemons, client: Client) -> None:
    """The daemon says so when the session opens, and the client does not ask."""
    async with connected(client, daemons.alice) as session:
        assert await echo(session, BULK) == BULK
        assert session.waits.sharing is None
        assert mapped(daemons) == (0, 0, 0, 0)


async def test_many_sessions_share_up_to_the_limit_and_the_others_go_on(daemons: TwoDaemons, client: Client) -> None:
    async def carry() -> None:
        async with connected(client, daemons.bob) as session:
            for _ in range(3):
                assert await echo(session, BULK[:200_000]) == BULK[:200_000]
            carried.append(shared_memories(os.getpid()))
            if len(carried) == 20:
                all_carried.set()
            await all_carried.wait()

    carried: list[int] = []
    all_carried = asyncio.Event()
    await asyncio.gather(*(carry() for _ in range(20)))
    assert 0 < max(carried) <= MAX_SHARED_OF_PROCESS


async def test_a_program_that_is_killed_leaves_no_memory(daemons: TwoDaemons) -> None:
    files = open_files(daemons.one.pid("network"))
    command = [sys.executable, "-c", PROGRAM, daemons.bob]
    started = subprocess.Popen(command, env=daemons.one.env, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    with child(started) as program:
        assert program.stdout is not None
        assert await asyncio.to_thread(program.stdout.readline) == "shared\n"
        await until(lambda: mapped(daemons)[1:] == (1, 1, 1), "all have mapped memory")
        program.kill()
    await until(lambda: mapped(daemons)[1:] == (0, 0, 0), "all others have unmapped it")
    await until(lambda: open_files(daemons.one.pid("network")) <= files, "no descriptor is left")


# ── hostile programs ─────────────────────────────────────────────────────────────────────────────


class HostileProgram:
    """A program that speaks to the network process of daemon ``one`` as it likes."""

    def __init__(self, daemons: TwoDaemons) -> None:
        self._path = daemons.one.home.mailbox("network")
        self._peer = daemons.bob
        self.raw = Raw(self._path)
        self.take = partial(receive_descriptor, self._path)

    def send(self, number: int, message: m.Message, payload: bytes = b"") -> None:
        assert self.raw.send(number.to_bytes(8, "big"), m.encode(message), payload)

    def receive(self, number: int, *tags: int) -> list[Any]:
        """Return the next message of a session that has one of the tags, or fails it."""
        while True:
            answer = self.raw.receive(30)
            assert answer is not None, "nothing was said"
            decoded: list[Any] = msgspec.msgpack.decode(answer[1])
            if answer[0] == number.to_bytes(8, "big") and decoded[0] in (*tags, _FAILURE):
                return decoded

    def open(self, number: int, do: str = "count") -> None:
        order = msgspec.msgpack.encode({"do": do})
        opening = m.OpenSession("alice", self._peer, "Trial", "default", 60_000, credit=SESSION_WINDOW)
        self.send(number, opening, order)
        assert self.receive(number, 64)[0] == 64

    def token(self, number: int) -> bytes:
        self.send(number, m.ShareMemory())
        tag, token = self.receive(number, _READY)[:2]
        assert tag == _READY
        return bytes(token)

    def assert_refused(self, number: int) -> None:
        code = self.receive(number)[1]
        assert code == e.BadMessage.code


@asynccontextmanager
async def hostile(daemons: TwoDaemons) -> AsyncIterator[HostileProgram]:
    """A hostile program, which ends. Honest ones are served then, and the network process is the same."""
    pids = daemons.one.pid("network"), daemons.two.pid("network")
    program = HostileProgram(daemons)
    with program.raw:
        yield program
    assert pids == (daemons.one.pid("network"), daemons.two.pid("network"))
    async with Client(daemons.one.home, program="tests") as client, connected(client, daemons.bob) as session:
        assert await echo(session, BULK[:1000]) == BULK[:1000]


async def test_data_outside_of_the_memory_ends_the_session(daemons: TwoDaemons) -> None:
    outside = [(-1, 1), (0, -1), (0, 0), (HALF - 1, 2), (HALF, 1), (2**62, 2**62), (0, MAX_CHUNK + 1), (-(2**62), 9)]
    async with hostile(daemons) as program:
        for number, (start, size) in enumerate(outside, 1):
            program.open(number)
            if number > 1:  # the first one has no memory at all
                os.close(await program.take(program.token(number)))
                program.send(number, m.ShareMemory(is_mapped=True))
            program.send(number, m.SharedData(start, size))
            program.assert_refused(number)


async def test_data_beyond_the_credit_or_that_changes_harms_only_its_session(daemons: TwoDaemons) -> None:
    async with hostile(daemons) as program:
        program.open(1, "hold")
        descriptor = await program.take(program.token(1))
        memory = SharedMemory(descriptor, is_daemon=False)
        os.close(descriptor)
        program.send(1, m.ShareMemory(is_mapped=True))
        for number in range(16 * WINDOW // MAX_CHUNK):  # more than all buffers up to the peer hold, on any machine
            memory.room(MAX_CHUNK)[:] = bytes([number]) * MAX_CHUNK  # all of them cover each other
            program.send(1, m.SharedData(0, MAX_CHUNK - CHUNK_COST))
        program.assert_refused(1)
        del memory
        program.open(2)
        os.close(await program.take(program.token(2)))
        program.send(2, m.EndOfStream())
        program.send(2, m.SharedData(0, 100))  # is dropped
        assert program.receive(2, 65)[0] == 65


async def test_tokens_count_once_and_for_their_session_alone(daemons: TwoDaemons) -> None:
    async with hostile(daemons) as program:
        program.send(1, m.ShareMemory())  # there is no session
        program.open(1)
        program.send(1, m.ShareMemory(is_mapped=True))  # and no memory
        token = program.token(1)
        program.send(1, m.ShareMemory())
        results = await asyncio.gather(*(outcome(program.take(each)) for each in (b"", bytes(16), token[:-1])))
        assert all(isinstance(result, OSError) for result in results)
        os.close(await program.take(token))
        assert isinstance(await outcome(program.take(token)), OSError)
        guesses = (random.Random(number).randbytes(16) for number in range(300))  # more than a program's connections
        results = await asyncio.gather(*(outcome(program.take(guess)) for guess in guesses))
        assert all(isinstance(result, OSError) for result in results)
        program.send(1, m.SharedData(0, 100_000))
        program.send(1, m.EndOfStream())
        assert program.receive(1, 65)[0] == 65


# ── the network process ends: these daemons are not used again ───────────────────────────────────


async def test_a_network_process_that_is_killed_ends_the_session(daemons: TwoDaemons, client: Client) -> None:
    session = await client.connect("alice", daemons.bob, "Trial", initial={"do": "echo"})
    await share(session, daemons)
    writing = asyncio.create_task(outcome(session.write(BULK * 4)))
    await session.read_exactly(SHARE_AFTER)
    killed = daemons.one.kill_actor("network")
    with pytest.raises(e.ConnectionLost):
        await read_all(session)
    assert isinstance(await writing, e.ConnectionLost)
    assert shared_memories(os.getpid()) == 0
    await outcome(session.close())
    await asyncio.to_thread(daemons.one.wait_actor, "network", killed)
    async with connected(client, daemons.bob) as again:
        await share(again, daemons)
        assert await echo(again, BULK) == BULK
