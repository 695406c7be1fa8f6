"""Retried calls: each is executed once, although processes between caller and handler are killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import ApplicationError, ConnectionLost, DeadlineExceeded, ProtocolNotFound
from tests.support.processes import send_signal, signal_if_alive
from tests.support.serving_programs import bob_at, programs, serving
from tests.support.two_daemons import TwoDaemons, binding_of, until

pytestmark = pytest.mark.asyncio_loop


class Once:
    """A handler that waits until it may go on."""

    def __init__(self) -> None:
        self.executed: list[object] = []
        self.cancelled = 0
        self.go_on = asyncio.Event()

    async def handle(self, request: Any) -> object:
        self.executed.append(request)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return f"{request} done"


def call(client: Client, daemons: TwoDaemons, request: object = "x", **options: Any) -> asyncio.Task[Any]:
    options = {"timeout": 60, "retry": True, **options}
    return asyncio.create_task(client.call("alice", daemons.bob, "Shop", request=request, **options))


async def restarted(daemons: TwoDaemons, side: str) -> None:
    daemon = daemons.one if side == "caller" else daemons.two
    pid = await asyncio.to_thread(daemon.kill_actor, "network")
    await asyncio.to_thread(daemon.wait_actor, "network", pid)


@pytest.mark.parametrize("side", ["caller", "callee"])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_call_executed_when_a_network_process_died_is_not_executed_again(
    daemons: TwoDaemons, side: str, count: int
) -> None:
    """By whichever program, although several serve it."""
    handlers = [Once() for _ in range(count)]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(daemons.one.home))
        for each in handlers:
            await stack.enter_async_context(serving(bob_at(daemons, each.handle)))
        calls = [call(client, daemons, number) for number in range(6)]
        await until(lambda: sum(len(each.executed) for each in handlers) == 6, "all are executed")
        await restarted(daemons, side)
        for each in handlers:
            each.go_on.set()
        assert await asyncio.gather(*calls) == [f"{number} done" for number in range(6)]
    assert sorted(str(request) for each in handlers for request in each.executed) == list("012345")
    assert sum(each.cancelled for each in handlers) == 0


async def test_a_call_whose_reply_was_lost_gets_the_same_reply(daemons: TwoDaemons) -> None:
    """The caller's daemon freezes, so that the handler ends meanwhile; then its network process dies."""
    once = Once()
    async with Client(daemons.one.home) as client, serving(bob_at(daemons, once.handle)):
        asked = call(client, daemons)
        await until(lambda: once.executed, "it is executed")
        pid = daemons.one.pid("network")
        send_signal(pid, signal.SIGSTOP)
        once.go_on.set()
        await until(lambda: binding_of(daemons.two, "bob", "Shop").in_flight == 0, "it is done")
        signal_if_alive(pid, signal.SIGKILL)
        await asyncio.to_thread(daemons.one.wait_actor, "network", pid)
        assert await asked == "x done"
    assert once.executed == ["x"]


PROGRAM = """
import asyncio, os
from fastn_p2p_client import listen

server = listen("bob")

@server.handle_requests("Shop", access="everyone")
async def handle(request: str) -> str:
    if request == "die":
        os._exit(1)
    return "the program"

asyncio.run(server.serve())
"""


async def test_a_call_whose_program_dies_is_executed_by_another(daemons: TwoDaemons) -> None:
    once = Once()
    once.go_on.set()
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=daemons.two.env)
    try:
        async with Client(daemons.one.home) as client:
            await until(lambda: programs(daemons) == 1, "it serves")
            async with serving(bob_at(daemons, once.handle)):
                assert await call(client, daemons, "die") == "die done"
                assert once.executed == ["die"]
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def test_it_waits_for_the_next_program_until_its_deadline(daemons: TwoDaemons) -> None:
    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=daemons.two.env)

    async with Client(daemons.one.home) as client:
        program = await start()
        await until(lambda: programs(daemons) == 1, "it serves")
        asked = call(client, daemons, "die")
        await program.wait()
        once = Once()
        once.go_on.set()
        async with serving(bob_at(daemons, once.handle)):
            assert await asked == "die done"
        program = await start()
        await until(lambda: programs(daemons) == 1, "it serves")
        with pytest.raises(DeadlineExceeded) as caught:
            await call(client, daemons, "die", timeout=2.5)
        assert caught.value.fields() == {"seconds": 2.5}
        await program.wait()


async def test_without_it_the_call_ends_and_says_that_it_may_have_been_executed(daemons: TwoDaemons) -> None:
    once = Once()
    async with Client(daemons.one.home) as client, serving(bob_at(daemons, once.handle)):
        asked = call(client, daemons, retry=False)
        await until(lambda: once.executed, "it is executed")
        await restarted(daemons, "caller")
        with pytest.raises(ConnectionLost):
            await asked
        await until(lambda: once.cancelled == 1, "the handler is told")


async def test_retries_end_at_an_error_of_the_handler_and_at_the_deadline(daemons: TwoDaemons) -> None:
    executed: list[object] = []

    async def refuse(request: object) -> None:
        executed.append(request)
        raise ApplicationError("No", "not today")

    async with Client(daemons.one.home) as client:
        with pytest.raises(ProtocolNotFound):
            await call(client, daemons, timeout=2)  # nobody came to serve it
        async with serving(bob_at(daemons, refuse)):
            with pytest.raises(ApplicationError):
                await call(client, daemons)
    assert executed == ["x"]


async def test_cancelling_it_reaches_the_handler(daemons: TwoDaemons) -> None:
    once = Once()
    async with Client(daemons.one.home) as client, serving(bob_at(daemons, once.handle)):
        asked = call(client, daemons)
        await until(lambda: once.executed, "it is executed")
        asked.cancel()
        await until(lambda: once.cancelled == 1, "the handler is told")


def test_on_the_command_line(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("call", daemons.bob, "Echo", "--as", "alice", "--retry", input='{"message": "hi"}')
    assert json.loads(done.stdout) == {"echoed": "Echo: hi"}, done.stderr
