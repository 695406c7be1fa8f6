"""Requests to a program that keeps nothing are spread over the daemons of its identity."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fastn_p2p_client import Client, Server, Session
from fastn_p2p_client.errors import OutcomeUnknown
from tests.support.daemons import Daemon
from tests.support.replicas import Replicas, kill_all, new_replicas
from tests.support.serving_programs import serving
from tests.support.two_daemons import until_awaited

pytestmark = pytest.mark.asyncio_loop


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    with new_replicas() as made:
        yield made


def server_at(daemon: Daemon, number: int) -> Server:
    """Return a server that replies with the number."""

    async def answer(request: str) -> int:
        return number

    async def send(session: Session) -> None:
        await session.write(bytes([number]))

    server = Server("bob", daemon.home)
    server.handle_requests("Spread", answer, access="everyone", stateless=True)
    server.handle_streams("Spread", send, access="everyone")
    server.handle_requests("Shop", answer, access="everyone")
    return server


@asynccontextmanager
async def serving_everywhere(replicas: Replicas) -> AsyncIterator[Client]:
    """Serve bob's Spread, which keeps nothing, and Shop, which may, at both daemons."""
    async with AsyncExitStack() as stack:
        for number, daemon in enumerate(replicas.daemons):
            await stack.enter_async_context(serving(server_at(daemon, number)))
        yield await stack.enter_async_context(Client(replicas.caller.home))


async def call(client: Client, replicas: Replicas, protocol: str = "Spread") -> int:
    number: int = await client.call("alice", replicas.bob, protocol, request="x", retry=True, timeout=60)
    return number


async def connect(client: Client, replicas: Replicas) -> int:
    async with await client.connect("alice", replicas.bob, "Spread", timeout=60) as session:
        return (await session.read_exactly(1))[0]


async def until_spread(client: Client, replicas: Replicas) -> None:
    """Make calls until both daemons have answered one."""
    seen: set[int] = set()

    async def by_both() -> bool:
        seen.add(await call(client, replicas))
        return len(seen) == 2

    await until_awaited(by_both, "both daemons answer")


async def ten_are_answered_by_the_first(client: Client, replicas: Replicas) -> bool:
    """Make calls one after the other. What the other one had got when it was killed ends typed."""
    try:
        return {await call(client, replicas) for _ in range(10)} == {0}
    except OutcomeUnknown:
        return False


async def test_calls_and_sessions_are_spread_and_others_stay_where_they_are(replicas: Replicas) -> None:
    async with serving_everywhere(replicas) as client:
        await until_spread(client, replicas)
        calls = Counter(await asyncio.gather(*(call(client, replicas) for _ in range(40))))
        assert min(calls[0], calls[1]) >= 10, calls
        sessions = {await connect(client, replicas) for _ in range(10)}
        assert sessions == {0, 1}
        assert len({await call(client, replicas, "Shop") for _ in range(10)}) == 1


async def test_they_go_to_the_daemon_that_is_left(replicas: Replicas) -> None:
    async with serving_everywhere(replicas) as client:
        await until_spread(client, replicas)
        await asyncio.to_thread(kill_all, replicas.daemons[1])
        try:
            await until_awaited(lambda: ten_are_answered_by_the_first(client, replicas), "all go to the first one")
        finally:
            await asyncio.to_thread(replicas.daemons[1].start)
        await until_spread(client, replicas)
