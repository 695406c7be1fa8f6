"""Strangers send whole payloads to bindings that never answer: the network process stays small, calls above the limits
are refused, and honest peers do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeAlias

import pytest

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.serving.server import Server
from tests.support import payload_attacks as attacks
from tests.support.attackers import Attack
from tests.support.processes import send_signal
from tests.support.siege import Victim, attack, besieged
from tests.support.two_daemons import start_two_daemons

Where: TypeAlias = Callable[[Victim], AbstractContextManager[None]]

_CALLS = 30


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with start_two_daemons() as daemons:
        yield Victim(daemons)


@contextmanager
def stopped(victim: Victim) -> Iterator[None]:
    """bob's process does not run: what is sent to it waits."""
    pid = victim.daemon.pid("identity-bob")
    send_signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def registrations(victim: Victim) -> Iterator[None]:
    """A program that serves comes and goes, so that calls are held for a while when it does not serve."""
    over = threading.Event()

    async def passing(request: int, peer: Peer) -> int:
        return request

    async def come_and_go() -> None:
        while not over.is_set():
            server = Server("bob", victim.daemon.home)
            server.handle_requests("Passing", passing)
            task = asyncio.create_task(server.serve())
            await asyncio.to_thread(over.wait, 0.3)
            server.close()
            with suppress(P2PError):
                await task

    thread = threading.Thread(target=lambda: asyncio.run(come_and_go()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


@pytest.mark.parametrize(
    "what",
    [
        attacks.large_calls_never_answered,
        attacks.small_calls_never_answered,
        attacks.tiny_calls_never_answered,
        attacks.calls_taken_back,
    ],
    ids=lambda what: what.__name__,
)
def test_a_binding_that_never_answers(victim: Victim, what: Attack) -> None:
    """Half of the calls may be retried. Without their connection they go on until their deadline, so the process that
    serves keeps their payloads."""
    with besieged(victim, frees_memory=False) as siege, attack(victim, what, attackers=8) as report:
        siege.calls(_CALLS)
    assert report.counts["calls"]


@pytest.mark.parametrize(
    "what",
    [attacks.small_calls_never_answered, attacks.sizes_of_all_kinds_never_answered],
    ids=lambda what: what.__name__,
)
@pytest.mark.parametrize("where", [stopped, registrations], ids=lambda where: where.__name__)
def test_a_process_that_does_not_read_or_is_not_there(victim: Victim, where: Where, what: Attack) -> None:
    """A process that was stopped gets what waited for it when it continues. So its memory is not checked."""
    protocol = "Trial" if where is stopped else "NobodyServesThis"
    with (
        where(victim),
        besieged(victim, answers_after=where is not stopped, frees_memory=False) as siege,
        attack(victim, what, attackers=8, protocol=protocol) as report,
    ):
        siege.calls(_CALLS)
    assert report.counts["calls"]
