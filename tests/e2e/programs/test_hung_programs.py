"""A program that serves a binding hangs: calls and sessions go to the others until it answers again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import DeadlineExceeded
from tests.support.daemons import eventually
from tests.support.processes import send_signal
from tests.support.two_daemons import TwoDaemons, binding_of, until_awaited, wait_idle

PROGRAM = """
import asyncio, os
from fastn_p2p_client import listen
from fastn_p2p_client.session.session import Session
server = listen("bob")
@server.handle_requests("Shop", access="everyone")
async def answer(request: dict) -> int:
    await asyncio.sleep(60 if request.get("slow") == os.getpid() else 0.005)
    return os.getpid()
@server.handle_streams("Shop", access="everyone")
async def send(session: Session) -> None:
    await session.write(str(os.getpid()).encode())
asyncio.run(server.serve())
"""
TIMEOUT = 3.0
"""Seconds: a process that runs always answers in time."""
PASSES = 0.5
"""Seconds after which unanswered calls end."""
CALLERS = 8


@pytest.fixture
def pids(daemons: TwoDaemons) -> Iterator[list[int]]:
    """Two programs that serve bob's Shop."""
    programs = [subprocess.Popen([sys.executable, "-c", PROGRAM], env=daemons.two.env) for _ in range(2)]
    try:
        eventually(lambda: served_by(daemons) == 2, "both serve")
        yield [program.pid for program in programs]
    finally:
        for program in programs:
            program.send_signal(signal.SIGCONT)
            program.kill()
            program.wait()
        eventually(lambda: served_by(daemons) == 0, "they are gone")
        wait_idle(daemons.two)


def served_by(daemons: TwoDaemons) -> int:
    bindings = [each for identity in daemons.two.status().identities for each in identity.bindings]
    return sum(each.programs for each in bindings if each.protocol == "Shop")


async def ask(client: Client, daemons: TwoDaemons, request: object, timeout: float = TIMEOUT) -> int:
    return int(await client.call("alice", daemons.bob, "Shop", request=request, timeout=timeout))


async def ask_briefly(client: Client, daemons: TwoDaemons, request: object) -> int:
    return await ask(client, daemons, request, PASSES)


async def open_session(client: Client, daemons: TwoDaemons, _request: object) -> int:
    async with await client.connect("alice", daemons.bob, "Shop", timeout=TIMEOUT) as session:
        return int(b"".join([chunk async for chunk in session]))


Ask = Callable[[Client, TwoDaemons, object], Awaitable[int]]


async def asked(daemons: TwoDaemons, ask: Ask, count: int, request: object = None) -> Counter[int]:
    """How many of so many were answered by which process; under 0 those whose deadline has passed."""
    answers: Counter[int] = Counter()

    async def caller(client: Client) -> None:
        while answers.total() < count:
            try:
                answers[await ask(client, daemons, request or {})] += 1
            except DeadlineExceeded:
                answers[0] += 1

    async with Client(daemons.one.home) as client:
        await asyncio.gather(*(caller(client) for _ in range(CALLERS)))
    return answers


@pytest.mark.parametrize("ask", [ask, open_session])
def test_a_stopped_program_costs_its_first_calls_and_comes_back(daemons: TwoDaemons, pids: list[int], ask: Ask) -> None:
    stopped, other = pids
    send_signal(stopped, signal.SIGSTOP)
    answers = asyncio.run(asked(daemons, ask, 300))
    assert answers[0] < 75, "half of its share: the first calls, a trial now and then, and some on a busy machine"
    assert answers[other] >= 300 - answers[0]
    os.kill(stopped, signal.SIGCONT)
    eventually(lambda: asyncio.run(asked(daemons, ask, 20))[stopped], "it gets its share again")


async def test_a_handler_that_is_slow_keeps_the_share_of_its_process(
    daemons: TwoDaemons, pids: list[int], client: Client
) -> None:
    """The process answers other calls meanwhile, so it does not hang."""
    slow, _ = pids
    late = [asyncio.ensure_future(ask(client, daemons, {"slow": slow})) for _ in range(4)]
    while not all(each.done() for each in late):
        await asked(daemons, ask, 5 * CALLERS)
    ended = await asyncio.gather(*late, return_exceptions=True)
    assert any(isinstance(each, DeadlineExceeded) for each in ended)

    async def both_have_a_share() -> bool:
        """A machine that holds one of them up for a moment gives the other one nearly all of these calls."""
        answers = await asked(daemons, ask, 100)
        return answers[0] < 10 and min(answers[pid] for pid in pids) >= 20

    await until_awaited(both_have_a_share, "it has its share")


def test_calls_go_somewhere_when_all_are_stopped(daemons: TwoDaemons, pids: list[int]) -> None:
    for pid in pids:
        send_signal(pid, signal.SIGSTOP)

    def handed_over() -> bool:
        """Unlike calls whose deadline has passed on their way."""
        assert asyncio.run(asked(daemons, ask_briefly, CALLERS))[0] >= CALLERS
        return binding_of(daemons.two, "bob", "Shop").calls >= 3 * CALLERS

    eventually(handed_over, "they are handed over")
    os.kill(pids[1], signal.SIGCONT)
    eventually(lambda: asyncio.run(asked(daemons, ask, 20))[pids[1]], "the one that goes on answers")
