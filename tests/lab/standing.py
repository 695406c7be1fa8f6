"""A session and a call that must not be repeated, which stand while a test disturbs the network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from fastn_p2p_client import Client, listen
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import AddProtocol, RemoveProtocol
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.session.session import Session
from tests.support.daemons import DEADLINE, Daemon

__all__ = ["Standing", "standing"]

_PROTOCOL: Final = "Standing"
_PAUSE: Final = 0.05
"""Seconds between two messages of the session."""


class Standing:
    """Ends of the session and of the call: error codes, empty for a good end."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}
        self._started = threading.Event()
        self._released = threading.Event()
        self._ended = threading.Event()
        self._go_on: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def wait_ends(self) -> None:
        """Wait until both have ended by themselves."""
        assert self._ended.wait(DEADLINE), self.ends

    def finish(self) -> None:
        """Let the handler of the call reply and the session end, and wait for it."""
        self.release()
        self.wait_ends()

    def release(self) -> None:
        """Let both end, if they have not ended by themselves."""
        self._released.set()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._go_on.set)

    async def run(self, callee: Daemon, caller: Daemon) -> None:
        self._loop, self._go_on = asyncio.get_running_loop(), asyncio.Event()
        server = listen("bob", callee.home)
        server.handle_requests(_PROTOCOL, self._answer_late)
        server.handle_streams(_PROTOCOL, _echo)
        serving = asyncio.create_task(server.serve())
        async with Client(caller.home, program="standing") as client:
            try:
                async with asyncio.timeout(DEADLINE):
                    await server.ready.wait()
                await client.wait_until_online("alice", "bob", timeout=DEADLINE)
                await asyncio.gather(self._call(client), self._talk(client))
            finally:
                self._ended.set()
                serving.cancel()
                with suppress(asyncio.CancelledError):
                    await serving

    async def _answer_late(self, _request: str, _peer: Peer) -> str:
        await self._go_on.wait()
        return "late"

    async def _call(self, client: Client) -> None:
        try:
            await client.call("alice", "bob", _PROTOCOL, request="", timeout=DEADLINE)
            self.ends["call"] = ""
        except P2PError as error:
            self.ends["call"] = error.code

    async def _talk(self, client: Client) -> None:
        try:
            async with await client.connect("alice", "bob", _PROTOCOL, "default", "") as session:
                number = 0
                while not self._released.is_set():
                    message = b"%08d" % number
                    await session.write(message)
                    received = b""
                    while len(received) < len(message):
                        received += await session.read()
                    assert received == message
                    self._started.set()
                    await asyncio.sleep(_PAUSE)
                    number += 1
            self.ends["session"] = ""
        except P2PError as error:
            self.ends["session"] = error.code


async def _echo(session: Session, _data: str) -> None:
    while data := await session.read():
        await session.write(data)


@contextmanager
def standing(caller: Daemon, callee: Daemon) -> Iterator[Standing]:
    """A session and a call from alice to bob, open when the block begins."""
    with callee.client() as client:
        client.control(AddProtocol("bob", _PROTOCOL, "default", ("everyone",), program=True))
    made = Standing()
    thread = threading.Thread(target=lambda: asyncio.run(made.run(callee, caller)), name="standing")
    thread.start()
    try:
        assert made._started.wait(DEADLINE), made.ends
        yield made
    finally:
        made.release()
        thread.join()
        with suppress(P2PError), callee.client() as client:
            client.control(RemoveProtocol("bob", _PROTOCOL, "default"))
