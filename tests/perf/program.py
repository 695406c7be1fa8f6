"""A program that calls through the daemon; ``python -m tests.perf.program HOME`` (of the caller's daemon)."""

from __future__ import annotations

import sys

import uvloop

from fastn_p2p_client.client import Client
from fastn_p2p_client.keys import PublicKey

from .load import MESSAGE, Phase, load, one_by_one
from .worker import obey

__all__: list[str] = []


class _Program:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def meet(self, identity: str, peer: str) -> None:
        """Say who calls whom; makes the first call."""
        self._identity = identity
        self._peer = PublicKey(peer)
        await self._call()

    async def load(self, in_flight: int, seconds: float, warm_up: float) -> Phase:
        return await load(self._call, in_flight, seconds, warm_up)

    async def series(self, count: int) -> Phase:
        return await one_by_one(self._call, count)

    async def _call(self) -> None:
        reply = await self._client.call(self._identity, self._peer, "Echo", request={"message": MESSAGE})
        if not reply["echoed"]:
            raise RuntimeError("an empty reply")


async def _main(home: str) -> None:
    async with Client(home, program="benchmark") as client:
        program = _Program(client)
        await obey({"meet": program.meet, "load": program.load, "series": program.series})


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
