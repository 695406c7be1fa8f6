"""Processes are killed while sessions are open: both sides get ``ConnectionLost`` at once, and nothing is left.

A truncated stream never looks complete: the flows compare every byte, and none of them ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastn_p2p_client import Client, ConnectionLost, DaemonNotRunning, Session
from fastn_p2p_client.ipc.messages import AddProtocol
from tests.chaos.conftest import Daemons
from tests.chaos.traffic import Traffic
from tests.support.daemons import Daemon
from tests.support.processes import open_files, send_signal
from tests.support.protocols import BLOCK, install_protocols
from tests.support.sessions import sessions_in
from tests.support.two_daemons import binding_of, counts_of, until, until_awaited

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """Two daemons, where bob has a Trial. Each test leaves them running and unharmed."""
    folder = tmp_path_factory.mktemp("sessions")
    env = install_protocols(folder / "packages")
    alice, bob = (Daemon(folder / name, folder / "hosts", **env) for name in ("one", "two"))
    try:
        alice.launch()
        bob.start()
        assert alice.wait_ready(), alice.report()
        alice.identity("alice", echo=False)
        daemons = Daemons(alice, bob, folder / "hosts", bob.identity("bob", echo=False))
        with bob.client() as client:
            client.control(AddProtocol("bob", "Trial", "default"))
        yield daemons
        daemons.stop()
    finally:
        alice.clean_up()
        bob.clean_up()


@pytest.fixture
async def client(daemons: Daemons) -> AsyncIterator[Client]:
    """Client of alice's daemon."""
    async with Client(daemons.alice.home, program="tests") as client:
        yield client


def count_sessions(daemons: Daemons) -> int:
    """Return the number of sessions in the status of both daemons."""
    return sessions_in(daemons.alice.status()) + sessions_in(daemons.bob.status())


async def assert_no_session_left(daemons: Daemons, client: Client) -> None:
    """Assert that the daemons and the program have no session, and that every handler has ended."""
    await until(lambda: count_sessions(daemons) == 0, "no session stands any more")
    await until(lambda: len(client._sessions) == 0, "the program has heard of the end of each")

    def all_noticed() -> bool:
        counts = counts_of(daemons.bob, "bob")
        return counts["begun"] == counts["ended"]

    await until(all_noticed, "every handler has noticed")


async def assert_new_session_works(daemons: Daemons, client: Client) -> None:
    """Wait until a new session works."""

    async def answers() -> bool:
        try:
            async with await client.connect(
                "alice", daemons.peer, "Trial", initial={"do": "who"}, timeout=20
            ) as session:
                return bool(await session.read())
        except Exception as error:
            print("not yet:", repr(error))
            return False

    await until_awaited(answers, "a new session works")


async def complete_session(daemons: Daemons, client: Client) -> Session:
    """Return a session whose bytes have all arrived, and of which none has been read."""
    session = await client.connect("alice", daemons.peer, "Trial", initial={"do": "send", "size": 500_000})
    await until(lambda: session.has_input and session._read_ended, "all of it has come")  # no event tells of it
    assert session._complete, session._read_error
    return session


async def assert_sessions_are_lost(traffic: Traffic, killed: float) -> float:
    """Assert that each direction of each session ends with ConnectionLost. Return the seconds that it took."""
    slowest = 0.0
    for flow in traffic.flows:
        await flow.wait_ended()
        for moment, error in flow.ended:
            assert isinstance(error, ConnectionLost), repr(error)
            slowest = max(slowest, moment - killed)
    for work in (traffic.stalled.write(BLOCK * 40), traffic.stalled.wait_sent()):
        with pytest.raises(ConnectionLost):
            await work
    traffic.stalled.reset()
    return slowest


def kill(daemon: Daemon, actor: str) -> int:
    """Kill the supervisor with all its processes, or one process. Return its pid."""
    if actor != "supervisor":
        return daemon.kill_actor(actor)
    daemon.kill()
    return 0


def restart(daemon: Daemon, actor: str, pid: int) -> None:
    if actor == "supervisor":
        daemon.start()
    else:
        daemon.wait_actor(actor, not_pid=pid)


@pytest.mark.parametrize(
    ("side", "actor", "rounds"),
    [
        ("alice", "network", 2),
        ("bob", "network", 2),
        ("bob", "identity-bob", 2),
        ("alice", "supervisor", 1),
        ("bob", "supervisor", 1),
    ],
)
async def test_a_process_on_the_path_is_killed(
    daemons: Daemons, side: str, actor: str, rounds: int, client: Client
) -> None:
    daemon = daemons.side(side)

    async def run_round() -> None:
        traffic = Traffic(client, "alice", daemons.peer)
        await traffic.start()
        complete = await complete_session(daemons, client)
        await traffic.assert_flowing(MIB)
        killed = time.monotonic()
        pid = await asyncio.to_thread(kill, daemon, actor)
        if actor == "supervisor" and side == "bob":  # its successor is started before it is missed
            await asyncio.to_thread(restart, daemon, actor, pid)
        slowest = await assert_sessions_are_lost(traffic, killed)
        print(f"{side}'s {actor} killed: {len(traffic.flows)} sessions ended after at most {slowest * 1000:.0f} ms")
        assert b"".join([chunk async for chunk in complete]) == (BLOCK * 2)[:500_000]
        complete.reset()
        if not (actor == "supervisor" and side == "bob"):
            await asyncio.to_thread(restart, daemon, actor, pid)
        await assert_new_session_works(daemons, client)
        await assert_no_session_left(daemons, client)

    for _ in range(rounds):
        await run_round()


@pytest.mark.parametrize("side", ["alice", "bob"])
@pytest.mark.parametrize("actor", ["gateway", "vault"])
async def test_sessions_survive_crashes_of_processes_off_their_path(
    daemons: Daemons, side: str, actor: str, client: Client
) -> None:
    daemon = daemons.side(side)

    traffic = Traffic(client, "alice", daemons.peer)
    await traffic.start()
    pid = await asyncio.to_thread(daemon.kill_actor, actor)
    await traffic.assert_flowing(MIB)
    await asyncio.to_thread(daemon.wait_actor, actor, pid)
    await traffic.assert_flowing(MIB)
    await traffic.stop()
    await assert_no_session_left(daemons, client)


async def test_a_killed_program_ends_its_sessions_on_both_sides(daemons: Daemons, client: Client) -> None:
    network = [daemons.alice.pid("network"), daemons.bob.pid("network")]

    await assert_new_session_works(daemons, client)
    await assert_no_session_left(daemons, client)
    before: list[int] = []
    for number in range(3):
        command = [sys.executable, "-m", "tests.chaos.traffic", str(daemons.alice.home.path), daemons.peer]
        root = Path(__file__).resolve().parents[2]
        program = await asyncio.to_thread(
            subprocess.Popen, command, env=daemons.alice.env, cwd=root, stdout=subprocess.PIPE
        )
        assert program.stdout is not None
        assert await asyncio.to_thread(program.stdout.readline) == b"flowing\n"
        assert binding_of(daemons.bob, "bob", "Trial").sessions == 5
        program.kill()
        killed = time.monotonic()
        program.wait()
        program.stdout.close()
        await until(lambda: count_sessions(daemons) == 0, "the sessions have ended")
        print(f"a killed program's sessions have ended after {(time.monotonic() - killed) * 1000:.0f} ms")
        await assert_no_session_left(daemons, client)
        if number == 0:  # descriptors are kept for the next sessions: as many as there were at once
            before = [open_files(pid) for pid in network]
    await until(lambda: [open_files(pid) for pid in network] <= [count + 2 for count in before], "no file is left")


async def test_a_silent_peer_daemon_is_disconnected(daemons: Daemons, client: Client) -> None:
    """The peer daemon is stopped, as by a machine that sleeps. It continues, and learns that its session has ended."""
    assert daemons.bob.process is not None
    pids = [daemons.bob.process.pid, daemons.bob.pid("network")]  # awake, the supervisor would replace the other one

    traffic = Traffic(client, "alice", daemons.peer)
    await traffic.start()
    await traffic.assert_flowing(MIB)
    for pid in pids:
        send_signal(pid, signal.SIGSTOP)
    try:
        slowest = await assert_sessions_are_lost(traffic, time.monotonic())
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
    print(f"a silent peer was given up after {slowest:.1f} s")
    assert slowest > 1
    assert daemons.bob.pid("network") == pids[1]
    await assert_new_session_works(daemons, client)
    await assert_no_session_left(daemons, client)


async def test_a_daemon_that_stops_cleanly_ends_its_sessions_with_an_error(daemons: Daemons, client: Client) -> None:
    """Neither side takes the bytes received so far for a complete stream."""

    for side in ("bob", "alice"):
        traffic = Traffic(client, "alice", daemons.peer)
        await traffic.start()
        stopping = time.monotonic()
        assert await asyncio.to_thread(daemons.side(side).stop) == 0
        slowest = await assert_sessions_are_lost(traffic, stopping)
        print(f"{side}'s daemon stopped: the sessions ended after {slowest:.1f} s")
        if side == "alice":
            with pytest.raises(DaemonNotRunning):
                await client.connect("alice", daemons.peer, "Trial")
        await asyncio.to_thread(daemons.side(side).start)
        await assert_new_session_works(daemons, client)
        await assert_no_session_left(daemons, client)
