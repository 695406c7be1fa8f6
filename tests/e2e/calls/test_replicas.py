"""Calls to an identity that two daemons serve: they go over to the other one, and are never executed by both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from fastn_p2p_client import Client, Server, Session
from fastn_p2p_client.errors import OutcomeUnknown, ProtocolNotFound
from fastn_p2p_client.ipc.messages import SetIdentityOnline
from tests.support.daemons import Daemon
from tests.support.replicas import Replicas, freeze, kill_all, new_replicas, thaw
from tests.support.serving_programs import serving
from tests.support.two_daemons import idle, until, until_awaited

pytestmark = pytest.mark.asyncio_loop


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    with new_replicas() as made:
        yield made


class Shop:
    """Program of both replicas: it notes who executed which request."""

    def __init__(self) -> None:
        self.executed: list[tuple[int, str]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    def handler(self, replica: int) -> Callable[[str], Awaitable[int]]:
        async def handle(request: str) -> int:
            self.executed.append((replica, request))
            if request.startswith("wait"):
                await self.go_on.wait()
            return replica

        return handle

    def count(self, request: str) -> int:
        return sum(name == request for _, name in self.executed)


@asynccontextmanager
async def open_shop(replicas: Replicas) -> AsyncIterator[tuple[Client, Shop]]:
    """Serve bob's Shop at both daemons, and open a client at the caller's."""
    shop = Shop()
    async with AsyncExitStack() as stack:
        for number, daemon in enumerate(replicas.daemons):
            server = Server("bob", daemon.home)
            server.handle_requests("Shop", shop.handler(number), access="everyone")
            await stack.enter_async_context(serving(server))
        yield await stack.enter_async_context(Client(replicas.caller.home)), shop


async def call(
    client: Client, replicas: Replicas, request: str = "x", timeout: float = 60.0, retry: bool = True
) -> int:
    number: int = await client.call("alice", replicas.bob, "Shop", request=request, timeout=timeout, retry=retry)
    return number


async def calls_until(client: Client, replicas: Replicas, replica: int) -> dict[str, object]:
    """Begin a call every 50 ms until one is answered by a replica. Return the outcome of each by its request."""
    calls: dict[str, asyncio.Task[int]] = {}

    async def answered() -> bool:
        request = f"number {next(_numbers)}"
        calls[request] = asyncio.create_task(call(client, replicas, request))
        await asyncio.wait([calls[request]], timeout=0.05)
        return any(each.done() and not each.exception() and each.result() == replica for each in calls.values())

    await until_awaited(answered, "the other one answers")
    outcomes = await asyncio.gather(*calls.values(), return_exceptions=True)
    assert all(isinstance(each, int | OutcomeUnknown) for each in outcomes), outcomes
    return dict(zip(calls, outcomes, strict=True))


_numbers = itertools.count()


@asynccontextmanager
async def silenced(daemon: Daemon, how: str) -> AsyncIterator[None]:
    """Kill or freeze a daemon, so that it says nothing to any peer. It serves again afterwards."""
    if how == "frozen":
        await asyncio.to_thread(freeze, daemon)
        try:
            yield
        finally:
            await asyncio.to_thread(thaw, daemon)
    else:
        await asyncio.to_thread(kill_all, daemon)
        try:
            yield
        finally:
            await asyncio.to_thread(daemon.start)
    await until(lambda: any(each.online for each in daemon.status().identities), "bob is online again")


async def restart_caller(replicas: Replicas) -> None:
    """Restart the caller's network process, which closes its connections."""
    pid = await asyncio.to_thread(replicas.caller.kill_actor, "network")
    await asyncio.to_thread(replicas.caller.wait_actor, "network", pid)


async def test_calls_stay_at_the_daemon_that_answered_first(replicas: Replicas) -> None:
    async with open_shop(replicas) as (client, _):
        assert len({await call(client, replicas, retry=False) for _ in range(20)}) == 1


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_calls_go_over_and_a_retried_one_is_not_executed_again(replicas: Replicas, how: str) -> None:
    """A call that the silent daemon has got ends typed, with the reply or without."""
    async with open_shop(replicas) as (client, shop):
        first = await call(client, replicas)
        shop.go_on.clear()
        waiting = asyncio.create_task(call(client, replicas, "wait"))
        await until(lambda: shop.count("wait"), "it is executed")
        async with silenced(replicas.daemons[first], how):
            outcomes = await calls_until(client, replicas, 1 - first)
            with pytest.raises(OutcomeUnknown):
                await waiting
            shop.go_on.set()
        await until(lambda: all(idle(each) for each in replicas.daemons), "what was frozen has been executed, too")
        assert shop.count("wait") == 1
        for request, outcome in outcomes.items():
            executed = [replica for replica, name in shop.executed if name == request]
            assert executed == [outcome] if isinstance(outcome, int) else len(executed) <= 1


async def test_a_retried_call_goes_back_to_a_daemon_that_restarts(replicas: Replicas) -> None:
    """The network process restarts. If that takes too long, the call ends typed; the other one never executes it."""
    async with open_shop(replicas) as (client, shop):
        first = await call(client, replicas)
        shop.go_on.clear()
        waiting = asyncio.create_task(call(client, replicas, "wait for its restart"))
        await until(lambda: shop.count("wait for its restart"), "it is executed")
        daemon = replicas.daemons[first]
        pid = await asyncio.to_thread(daemon.kill_actor, "network")
        await asyncio.to_thread(daemon.wait_actor, "network", pid)
        shop.go_on.set()
        with suppress(OutcomeUnknown):
            assert await waiting == first
        assert shop.executed.count((first, "wait for its restart")) == shop.count("wait for its restart") == 1


async def test_a_retried_call_is_executed_once_when_the_process_that_knew_where_it_went_is_killed(
    replicas: Replicas,
) -> None:
    """The caller's next network process does not know which daemon has executed it. It may reach the same one again."""
    async with open_shop(replicas) as (client, shop):
        await call(client, replicas)
        shop.go_on.clear()
        waiting = asyncio.create_task(call(client, replicas, "wait for the caller"))
        await until(lambda: shop.count("wait for the caller"), "it is executed")
        await restart_caller(replicas)
        shop.go_on.set()
        with suppress(OutcomeUnknown):
            assert await waiting in (0, 1)
        assert await call(client, replicas) in (0, 1)
    assert shop.count("wait for the caller") == 1


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_caller_without_a_connection_reaches_the_other_daemon(replicas: Replicas, how: str) -> None:
    async with open_shop(replicas) as (client, _):
        first = await call(client, replicas)
        async with silenced(replicas.daemons[first], how):
            await restart_caller(replicas)
            assert await call(client, replicas) == 1 - first


async def test_calls_go_over_when_the_identity_is_taken_offline_at_one_daemon(replicas: Replicas) -> None:
    async with open_shop(replicas) as (client, _):
        first = await call(client, replicas)
        with replicas.daemons[first].client() as control:
            await asyncio.to_thread(control.control, SetIdentityOnline("bob", False))
            try:
                assert {await call(client, replicas) for _ in range(5)} == {1 - first}
            finally:
                await asyncio.to_thread(control.control, SetIdentityOnline("bob", True))


async def test_requests_go_to_the_daemon_that_serves_the_binding(replicas: Replicas) -> None:
    """Each daemon has bindings of its own. A caller need not know which daemon it has reached."""
    async with AsyncExitStack() as stack:
        for daemon, protocol in zip(replicas.daemons, ("AtFirst", "AtSecond"), strict=True):
            server = Server("bob", daemon.home)
            server.handle_requests(protocol, answer_with(protocol), access="everyone")
            server.handle_streams(protocol, greet, access="everyone")
            await stack.enter_async_context(serving(server))
        client = await stack.enter_async_context(Client(replicas.caller.home))
        for retry in (False, True, False):
            for protocol in ("AtFirst", "AtSecond"):
                reply = await client.call("alice", replicas.bob, protocol, request="x", timeout=60.0, retry=retry)
                assert reply == protocol
                async with await client.connect("alice", replicas.bob, protocol, timeout=60.0) as session:
                    assert await session.read_exactly(5) == b"hello"
        with pytest.raises(ProtocolNotFound):
            await client.call("alice", replicas.bob, "Nowhere", request="x", timeout=60.0)


def answer_with(protocol: str) -> Callable[[str], Awaitable[str]]:
    async def handle(_: str) -> str:
        return protocol

    return handle


async def greet(session: Session) -> None:
    await session.write(b"hello")
