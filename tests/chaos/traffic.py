"""Sessions that never rest: bytes go both ways until something breaks, and each is compared with what was sent.

A program of its own when it is run: ``python -m tests.chaos.traffic HOME PEER`` says ``flowing`` once everything flows.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from fastn_p2p_client import Client, P2PError, Session
from tests.support.protocols import BLOCK
from tests.support.two_daemons import until

__all__ = ["Flow", "Traffic"]

_TWICE: Final = BLOCK + BLOCK


class Flow:
    """Session with an echo that sends and receives at the same time.

    Attributes:
        ended: when each direction has ended, and with what; by ``time.monotonic()``.
        fault: what must not be: bytes that were not sent, or an end that nobody has sent.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ended: list[tuple[float, BaseException]] = []
        self.fault = ""
        self._tasks = [asyncio.create_task(self._until_it_breaks(work())) for work in (self._pour, self._drain)]

    async def _until_it_breaks(self, work: Any) -> None:
        try:
            await work
        except P2PError as error:
            self.ended.append((time.monotonic(), error))

    async def _pour(self) -> None:
        while True:
            await self.session.write(BLOCK)

    async def _drain(self) -> None:
        position = 0
        async for chunk in self.session:
            if _TWICE[position : position + len(chunk)] != chunk:
                self.fault = f"other bytes at {self.session.bytes_read - len(chunk)}"
                return
            position = (position + len(chunk)) % len(BLOCK)
        self.fault = f"an end after {self.session.bytes_read} bytes"

    async def over(self, timeout: float) -> None:
        """Wait until both directions have ended, each with an error."""
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        assert not late, f"still waiting after {timeout:g} s"
        assert not self.fault, self.fault
        assert len(self.ended) == 2


class Traffic:
    """Several flows, and a session in which both sides write and nobody reads."""

    def __init__(self, client: Client, identity: str, peer: str) -> None:
        self._client, self._identity, self._peer = client, identity, peer
        self.flows: list[Flow] = []
        self.stalled: Session

    async def start(self, count: int = 4) -> None:
        """Returns once all of them flow."""
        for _ in range(count):
            self.flows.append(Flow(await self._connect("echo")))
        self.stalled = await self._connect("hold")
        await self.flows_on(1)

    async def _connect(self, do: str) -> Session:
        return await self._client.connect(self._identity, self._peer, "Trial", initial={"do": do})

    async def flows_on(self, size: int, timeout: float = 10.0) -> None:
        """Returns once each has brought so many bytes more."""
        wanted = [flow.session.bytes_read + size for flow in self.flows]

        def all_have() -> bool:
            if all(flow.session.bytes_read >= goal for flow, goal in zip(self.flows, wanted, strict=True)):
                return True
            assert not [flow.ended for flow in self.flows if flow.ended]
            assert not [flow.fault for flow in self.flows if flow.fault]
            return False

        await until(all_have, f"each has brought {size} bytes more", timeout)

    async def stop(self) -> None:
        """Reset what still stands."""
        self.stalled.reset()
        for flow in self.flows:
            flow.session.reset()
            await flow.over(5)


async def _main(home: str, peer: str) -> None:
    async with Client(home, program="traffic") as client:
        traffic = Traffic(client, "alice", peer)
        await traffic.start()
        print("flowing", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
