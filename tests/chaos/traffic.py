"""Sessions with bytes in both directions until an error, each byte compared with the one that was sent.

Runs as a program, too: ``python -m tests.chaos.traffic HOME PEER`` prints ``flowing`` once all sessions flow.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from fastn_p2p_client import Client, P2PError, Session
from tests.support.daemons import DEADLINE
from tests.support.protocols import BLOCK
from tests.support.two_daemons import until

__all__ = ["Flow", "Traffic"]

_TWICE: Final = BLOCK + BLOCK


class Flow:
    """Session with an echo that sends and receives at the same time.

    Attributes:
        ended: end of each direction: ``time.monotonic()`` and the error.
        wrong_bytes: bytes that were not sent, or an end that was not sent.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ended: list[tuple[float, BaseException]] = []
        self.wrong_bytes = ""
        self._tasks = [asyncio.create_task(self._run_until_error(work())) for work in (self._pour, self._drain)]

    async def _run_until_error(self, work: Any) -> None:
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
                self.wrong_bytes = f"other bytes at {self.session.bytes_read - len(chunk)}"
                return
            position = (position + len(chunk)) % len(BLOCK)
        self.wrong_bytes = f"an end after {self.session.bytes_read} bytes"

    async def wait_ended(self) -> None:
        """Wait until both directions have ended, each with an error."""
        _, late = await asyncio.wait(self._tasks, timeout=DEADLINE)
        assert not late, f"still waiting after {DEADLINE:g} s"
        assert not self.wrong_bytes, self.wrong_bytes
        assert len(self.ended) == 2


class Traffic:
    """Several flows, and a session in which both sides write and neither reads."""

    def __init__(self, client: Client, identity: str, peer: str) -> None:
        self._client, self._identity, self._peer = client, identity, peer
        self.flows: list[Flow] = []
        self.stalled: Session

    async def start(self, count: int = 4) -> None:
        """Open the sessions, and wait until bytes flow in each."""
        for _ in range(count):
            self.flows.append(Flow(await self._connect("echo")))
        self.stalled = await self._connect("hold")
        await self.assert_flowing(1)

    async def _connect(self, do: str) -> Session:
        return await self._client.connect(self._identity, self._peer, "Trial", initial={"do": do})

    async def assert_flowing(self, size: int) -> None:
        """Wait until each flow has received ``size`` more bytes."""
        wanted = [flow.session.bytes_read + size for flow in self.flows]

        def all_have() -> bool:
            if all(flow.session.bytes_read >= goal for flow, goal in zip(self.flows, wanted, strict=True)):
                return True
            assert not (ended := [flow.ended for flow in self.flows if flow.ended]), ended
            assert not [flow.wrong_bytes for flow in self.flows if flow.wrong_bytes]
            return False

        await until(all_have, f"each has brought {size} bytes more")

    async def stop(self) -> None:
        """Reset all sessions."""
        self.stalled.reset()
        for flow in self.flows:
            flow.session.reset()
            await flow.wait_ended()


async def _main(home: str, peer: str) -> None:
    async with Client(home, program="traffic") as client:
        traffic = Traffic(client, "alice", peer)
        await traffic.start()
        print("flowing", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
