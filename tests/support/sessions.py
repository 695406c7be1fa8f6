"""Sessions as tests hold them: opened, read, filled, and counted by what the daemons say of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from fastn_p2p_client import Client, Session
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon
from tests.support.protocols import BLOCK
from tests.support.two_daemons import TwoDaemons

__all__ = ["connected", "count_sessions", "daemon_of", "fill", "outcome", "read_all", "run", "sessions_in"]

T = TypeVar("T")
STOPPED: Final = 0.3
"""Seconds in which a write returns if the other side reads."""


def run(daemon: Daemon, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """``work`` with a client of ``daemon``, in an event loop of its own."""

    async def session() -> T:
        async with Client(daemon.home, program="tests") as client, asyncio.timeout(240):
            return await work(client)

    return asyncio.run(session())


def count_sessions(daemons: TwoDaemons) -> int:
    """Return the number of open sessions in the status of both daemons."""
    return sessions_in(daemons.one.status()) + sessions_in(daemons.two.status())


def sessions_in(status: m.Status) -> int:
    """Return the number of sessions that are served there, plus those with peers."""
    served = sum(binding.sessions for identity in status.identities for binding in identity.bindings)
    return served + sum(connection.streams - 1 for connection in status.connections)


def daemon_of(daemons: TwoDaemons, peer: str) -> tuple[Daemon, str]:
    """Return the peer's daemon, and its name there."""
    return (daemons.two, "bob") if peer == daemons.bob else (daemons.one, "alice")


@asynccontextmanager
async def connected(client: Client, peer: str, do: str = "echo", **order: Any) -> AsyncIterator[Session]:
    async with await client.connect("alice", peer, "Trial", initial={"do": do, **order}) as session:
        yield session


async def read_all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except Exception as error:
        return error


async def fill(session: Session) -> int:
    """Write until a write does not return. Return the number of bytes written."""
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(STOPPED):
                await session.write(BLOCK)
    return session.bytes_written
