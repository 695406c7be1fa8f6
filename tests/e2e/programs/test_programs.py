"""Programs that serve, as others see them: like protocols that the daemon hosts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import pytest

from fastn_p2p_client import Client, listen
from fastn_p2p_client.errors import (
    ApplicationError,
    BindingExists,
    Denied,
    IdentityNotFound,
    Overloaded,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import AddProtocol, SetIdentityOnline
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.serving.server import Server
from fastn_p2p_client.session.session import Session
from tests.support.daemons import DEADLINE, Daemon
from tests.support.serving_programs import bob_at, programs, serving, until_answered
from tests.support.two_daemons import TwoDaemons, binding_of, until

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport"), pytest.mark.asyncio_loop]


async def test_a_request_reaches_the_handler_and_the_reply_comes_back(daemons: TwoDaemons) -> None:
    async def price(request: dict[str, int], peer: Peer) -> dict[str, object]:
        return {"sum": sum(request.values()), "who": peer.key.id52}

    async with serving(bob_at(daemons, price)), Client(daemons.one.home) as client:
        reply = await client.call("alice", daemons.bob, "Shop", request={"a": 1, "b": 2})
        assert reply == {"sum": 3, "who": daemons.alice}
        status = binding_of(daemons.two, "bob", "Shop")
        assert (status.state, status.programs, status.calls > 0) == ("serving", 1, True)
    with pytest.raises(ProtocolNotFound):
        async with Client(daemons.one.home) as client:
            await client.call("alice", daemons.bob, "Shop", request={})


async def test_sessions_reach_a_program_too(daemons: TwoDaemons) -> None:
    server = Server("bob", daemons.two.home)

    @server.handle_streams("Shop", access="everyone")
    async def send(session: Session, size: int) -> None:
        if size < 0:
            raise ApplicationError("Negative", "not so", size)
        await session.write(b"x" * size)

    async with serving(server), Client(daemons.one.home) as client:
        async with await client.connect("alice", daemons.bob, "Shop", initial=1_000_000) as session:
            assert sum([len(chunk) async for chunk in session]) == 1_000_000
        with pytest.raises(ApplicationError, match="Negative"):
            await client.connect("alice", daemons.bob, "Shop", initial=-1)


async def test_a_handler_that_is_not_async_runs_in_a_thread(daemons: TwoDaemons) -> None:
    import threading

    def blocking(request: str) -> bool:
        return threading.current_thread() is threading.main_thread()

    async with serving(bob_at(daemons, blocking)), Client(daemons.one.home) as client:
        assert await client.call("alice", daemons.bob, "Shop", request="x") is False


async def test_requests_go_to_the_program_that_has_the_fewest(daemons: TwoDaemons) -> None:
    counts = [0, 0]
    blocked = asyncio.Event()

    def handler(number: int) -> Callable[..., object]:
        async def handle(request: dict[str, int]) -> int:
            counts[number] += 1
            if request.get("wait"):
                await blocked.wait()
            return number

        return handle

    async with (
        serving(bob_at(daemons, handler(0))),
        serving(bob_at(daemons, handler(1))),
        Client(daemons.one.home) as client,
    ):
        assert programs(daemons) == 2
        waiting = [
            asyncio.create_task(client.call("alice", daemons.bob, "Shop", request={"wait": 1})) for _ in range(10)
        ]
        await until(lambda: sum(counts) == 10, "all ten wait")
        assert counts == [5, 5]
        blocked.set()
        assert sorted(await asyncio.gather(*waiting)) == [0] * 5 + [1] * 5


async def test_more_than_a_program_takes_is_refused(daemons: TwoDaemons) -> None:
    blocked, begun = asyncio.Event(), []

    async def handle(request: int) -> int:
        begun.append(request)
        await blocked.wait()
        return request

    server = bob_at(daemons, handle, concurrency=1, queue=1)
    async with serving(server), Client(daemons.one.home) as client:
        calls = [asyncio.create_task(client.call("alice", daemons.bob, "Shop", request=n)) for n in range(2)]
        await until(lambda: binding_of(daemons.two, "bob", "Shop").in_flight == 2, "both are there")
        await until(lambda: len(begun) == 1, "one of them is served")
        with pytest.raises(Overloaded):
            await client.call("alice", daemons.bob, "Shop", request=2)
        blocked.set()
        assert sorted(await asyncio.gather(*calls)) == [0, 1]


async def test_strangers_are_kept_out_unless_they_are_let_in(daemons: TwoDaemons) -> None:
    async def handle(request: None) -> str:
        return "in"

    async with Client(daemons.one.home) as client:
        async with serving(bob_at(daemons, handle, access="peers")):
            with pytest.raises(Denied):
                await client.call("alice", daemons.bob, "Shop")
        async with serving(bob_at(daemons, handle, access=[daemons.alice])):
            assert await client.call("alice", daemons.bob, "Shop") == "in"


async def test_a_protocol_that_cannot_be_served_is_reported_at_once(daemons: TwoDaemons) -> None:
    async def handle(request: None) -> None:
        return None

    with pytest.raises(BindingExists):
        await bob_at(daemons, handle, protocol="Echo").serve()
    nobody = Server("nobody", daemons.two.home)
    nobody.handle_requests("Shop", handle)
    with pytest.raises(IdentityNotFound):
        await nobody.serve()
    with pytest.raises(ValueError, match="nothing to serve"):
        await listen("bob", daemons.two.home).serve()


async def test_a_hosted_binding_takes_the_place_of_programs(daemon: Daemon) -> None:
    """The same holds if it was added while the identity was offline: a program cannot keep an identity offline."""
    id52 = daemon.identity("carol", echo=False)

    async def handle(request: dict[str, str]) -> str:
        return "a program"

    server = Server("carol", daemon.home)
    server.handle_requests("Echo", handle)
    async with serving(server), Client(daemon.home) as client:
        assert await client.call("carol", id52, "Echo", request={"message": "hi"}) == "a program"
        await client.control(SetIdentityOnline("carol", False))
        await client.control(AddProtocol("carol", "Echo", "default"))
        await client.control(SetIdentityOnline("carol", True))
        assert await client.call("carol", id52, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}


async def test_calls_in_flight_are_finished_when_a_program_stops(daemons: TwoDaemons) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: None) -> str:
        begun.set()
        await go_on.wait()
        return "finished"

    async with Client(daemons.one.home) as client:
        server = bob_at(daemons, handle)
        async with serving(server):
            call = asyncio.create_task(client.call("alice", daemons.bob, "Shop"))
            await begun.wait()
            server.close()
            await until(lambda: not programs(daemons), "out")
            go_on.set()
            assert await call == "finished"


@pytest.mark.parametrize("actor", ["network", "identity-bob", "gateway", "vault"])
async def test_a_program_serves_again_after_a_process_of_the_daemon_has_died(daemons: TwoDaemons, actor: str) -> None:
    async def handle(request: dict[str, int]) -> str:
        return "still there"

    async with serving(bob_at(daemons, handle)), Client(daemons.one.home) as client:
        assert await until_answered(client, daemons) == "still there"
        pid = daemons.two.kill_actor(actor)
        assert await until_answered(client, daemons) == "still there"
        await asyncio.to_thread(daemons.two.wait_actor, actor, pid)
        assert await until_answered(client, daemons) == "still there"


PROGRAM = """
import asyncio, sys, time
from fastn_p2p_client import listen

server = listen("bob")

@server.handle_requests("Shop", access="everyone")
async def handle(request: dict) -> str:
    if request.get("wait"):
        await asyncio.Event().wait()
    return "here"

asyncio.run(server.serve())
"""


async def test_a_program_that_is_killed_ends_its_calls_at_once_and_no_others(daemons: TwoDaemons) -> None:
    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=daemons.two.env)

    first, second = await start(), await start()
    try:
        async with Client(daemons.one.home) as client:
            await until(lambda: programs(daemons) == 2, "both serve")
            calls = [
                asyncio.create_task(client.call("alice", daemons.bob, "Shop", request={"wait": 1}, timeout=120))
                for _ in range(4)
            ]
            await until(lambda: binding_of(daemons.two, "bob", "Shop").in_flight == 4, "all wait")
            os.kill(first.pid, signal.SIGKILL)
            done, _ = await asyncio.wait(calls, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
            await until(lambda: sum(call.done() for call in calls) == 2, "those of the killed one have ended")
            assert {type(call.exception()).__name__ for call in done} == {"ConnectionLost"}
            assert await client.call("alice", daemons.bob, "Shop", request={}) == "here"
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    finally:
        for process in (first, second):
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def test_a_program_serves_again_after_the_daemon_was_started_anew(daemon: Daemon) -> None:
    id52 = daemon.identity("carol")

    async def handle(request: dict[str, int]) -> str:
        return "still there"

    server = Server("carol", daemon.home)
    server.handle_requests("Shop", handle)
    async with serving(server), Client(daemon.home) as client:
        assert await client.call("carol", id52, "Shop", request={}) == "still there"
        await asyncio.to_thread(daemon.stop)
        await asyncio.to_thread(daemon.start)
        await asyncio.wait_for(server.ready.wait(), 60)
        assert await client.call("carol", id52, "Shop", request={}) == "still there"
