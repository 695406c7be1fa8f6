"""A program that calls through the daemon; ``python -m tests.benchmarks.program HOME TRANSPORT`` (of the caller's
daemon)."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from time import perf_counter

import uvloop

from fastn_p2p_client.client import Client
from fastn_p2p_client.ipc.transport.base import choose_transport
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.session.session import Session

from .flow import Flow, Order, decode_flow, draw, order, pour
from .load import MESSAGE, Phase, load, one_by_one, phase_of
from .worker import obey

__all__: list[str] = []


class _Program:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def meet(self, identity: str, peer: str, protocol: str = "Echo") -> None:
        """Say who calls whom; makes the first call."""
        self._identity = identity
        self._peer = PublicKey(peer)
        await self._call(protocol)

    async def load(self, in_flight: int, seconds: float, warm_up: float, protocol: str = "Echo") -> Phase:
        return await load(partial(self._call, protocol), in_flight, seconds, warm_up)

    async def series(self, count: int) -> Phase:
        return await one_by_one(self._call, count)

    async def pour(self, streams: int, seconds: float, warm_up: float, protocol: str = "Bytes") -> list[Flow]:
        """Write at full speed into so many sessions at once."""
        return await self._carry(streams, order("read", seconds, warm_up), protocol)

    async def draw(self, streams: int, seconds: float, warm_up: float) -> list[Flow]:
        """Read from so many sessions whose handlers write at full speed."""
        return await self._carry(streams, order("write", seconds, warm_up))

    async def pour_and_load(self, seconds: float, warm_up: float) -> tuple[list[Flow], Phase]:
        """Calls, one after the other, beside a session that is written to at full speed before, meanwhile and after."""
        flows, phase = await asyncio.gather(
            self.pour(1, seconds + 2 * warm_up, warm_up), self.load(1, seconds, 2 * warm_up)
        )
        return flows, phase

    async def both_directions(self, seconds: float, warm_up: float) -> list[Flow]:
        """Write into a session, and read from another one, at full speed."""
        flows = await asyncio.gather(self.pour(1, seconds, warm_up), self.draw(1, seconds, warm_up))
        return [flow for each in flows for flow in each]

    async def openings(self, seconds: float) -> tuple[Phase, Phase]:
        """A call, then a session until the first byte of an answer, in turn; the end of a session does not count."""
        calls: list[float] = []
        sessions: list[float] = []
        end = perf_counter() + seconds
        while (began := perf_counter()) < end:
            await self._call()
            calls.append(perf_counter() - began)
            began = perf_counter()
            session = await self._greeted()
            sessions.append(perf_counter() - began)
            await session.close()
        return phase_of(calls, 0, seconds), phase_of(sessions, 0, seconds)

    async def short_sessions(self, at_once: int, seconds: float, warm_up: float) -> Phase:
        """Sessions that are opened, read to the first byte and closed."""

        async def one() -> None:
            await (await self._greeted()).close()

        return await load(one, at_once, seconds, warm_up)

    async def _greeted(self) -> Session:
        """Open a session, and read the first bytes of the answer."""
        session = await self._open(Order("greet"))
        if not await session.read():
            raise RuntimeError("no greeting")
        return session

    async def _carry(self, streams: int, wanted: Order, protocol: str = "Bytes") -> list[Flow]:
        return await asyncio.gather(*(self._carry_one(wanted, protocol) for _ in range(streams)))

    async def _carry_one(self, wanted: Order, protocol: str) -> Flow:
        async with await self._open(wanted, protocol) as session:
            if wanted.do == "write":
                return await draw(session.read, wanted)
            await pour(session.write, wanted)
            await session.send_eof()
            return decode_flow(await session.read())

    async def _open(self, wanted: Order, protocol: str = "Bytes") -> Session:
        return await self._client.connect(self._identity, self._peer, protocol, initial=wanted)

    async def _call(self, protocol: str = "Echo") -> None:
        reply = await self._client.call(self._identity, self._peer, protocol, request={"message": MESSAGE})
        if not reply["echoed"]:
            raise RuntimeError("an empty reply")


async def _main(home: str, transport: str) -> None:
    async with Client(home, program="benchmark", transport=choose_transport(transport)) as client:
        program = _Program(client)
        commands = (
            program.meet, program.load, program.series,
            program.pour, program.draw, program.both_directions, program.pour_and_load,
            program.openings, program.short_sessions,
        )  # fmt: skip
        await obey({command.__name__: command for command in commands})


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
