"""Retried calls whose callee's daemon is killed as a whole: what it had executed is not executed again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import OutcomeUnknown
from tests.support.replicas import kill_all
from tests.support.serving_programs import bob_at, serving
from tests.support.two_daemons import TwoDaemons, binding_of, counts_of, until

pytestmark = pytest.mark.asyncio_loop

WAIT = {"do": "wait", "seconds": 60}


async def test_a_call_is_not_executed_again_after_its_daemon_was_killed(daemons: TwoDaemons) -> None:
    """Even if the caller's network process was killed, too. A program that lives still knows its call."""
    executed: list[str] = []
    go_on = asyncio.Event()

    async def handle(request: str) -> str:
        executed.append(request)
        await go_on.wait()
        return f"{request} done"

    def call(client: Client, identity: str, protocol: str, request: object) -> asyncio.Task[Any]:
        return asyncio.create_task(
            client.call(identity, daemons.bob, protocol, request=request, timeout=60, retry=True)
        )

    async with Client(daemons.one.home) as client, Client(daemons.two.home) as beside, serving(bob_at(daemons, handle)):
        lost = [call(client, "alice", "Trial", WAIT), call(beside, "bob", "Trial", WAIT)]
        known = call(client, "alice", "Shop", "x")
        await until(lambda: binding_of(daemons.two, "bob", "Trial").in_flight == 2 and executed, "all are executed")
        await asyncio.to_thread(kill_all, daemons.two)
        pid = await asyncio.to_thread(daemons.one.kill_actor, "network")
        await asyncio.to_thread(daemons.one.wait_actor, "network", pid)
        waiting = call(client, "alice", "Echo", {"message": "hi"})
        await asyncio.to_thread(daemons.two.start)
        go_on.set()
        for each in lost:
            with pytest.raises(OutcomeUnknown) as caught:
                await each
            assert caught.value.peer == daemons.bob
        assert await known == "x done"
        assert (await waiting)["echoed"] == "Echo: hi"
    assert executed == ["x"]
    assert (await asyncio.to_thread(counts_of, daemons.two, "bob"))["begun"] == 0
