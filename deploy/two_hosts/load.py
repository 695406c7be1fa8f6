"""Serve, or make load and count what happens: ``load.py serve|calls|streams|retries ...``, at one of the two hosts.

It ends when its input does, and prints its result as one line of JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from typing import Any

from fastn_p2p_client import Client, P2PError, Session, listen

IN_FLIGHT = 16
BLOCK = bytes(range(256)) * 4096  # 1 MiB
TIMEOUT = 120.0
"""Seconds that a call with ``retry=True`` may take: longer than any restart."""


async def serve(identity: str) -> None:
    """Serve ``Sum`` and ``Digest`` to peers in the address book."""
    server = listen(identity)

    @server.handle_requests("Sum", access="peers")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    @server.handle_streams("Digest", access="peers")
    async def digest(session: Session) -> None:
        found = hashlib.blake2b()
        async for chunk in session:
            found.update(chunk)
        await session.write(found.digest())

    serving = asyncio.create_task(server.serve())
    await asyncio.wait((serving, asyncio.create_task(input_ended())), return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    print("{}")


async def calls(peer: str, count: str) -> dict[str, Any]:
    """Make calls one after the other, then as many with some in flight."""

    async def add_one(client: Client, number: int) -> None:
        if await client.call(None, peer, "Sum", request=[number, 1]) != number + 1:
            raise SystemExit(f"the call of {number} got a wrong reply")

    async with Client() as client:
        # The program that serves has been started a moment ago.
        await client.call(None, peer, "Sum", request=[1], retry=True, timeout=TIMEOUT)
        times = []
        for number in range(int(count)):
            began = time.perf_counter()
            await add_one(client, number)
            times.append(time.perf_counter() - began)

        async def some(first: int) -> None:
            for number in range(first, int(count), IN_FLIGHT):
                await add_one(client, number)

        began = time.perf_counter()
        await asyncio.gather(*map(some, range(IN_FLIGHT)))
        rate = int(count) / (time.perf_counter() - began)
    times.sort()
    return {"calls": 2 * int(count), "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "rate": rate}


async def streams(peer: str, megabytes: str) -> dict[str, Any]:
    """Send bytes on a stream, and compare the digest that comes back."""
    expected = hashlib.blake2b()
    async with Client() as client:
        began = time.perf_counter()
        async with await client.connect(None, peer, "Digest") as session:
            for _ in range(int(megabytes)):
                await session.write(BLOCK)
                expected.update(BLOCK)
            await session.send_eof()
            digest = b"".join([chunk async for chunk in session])
    return {"seconds": time.perf_counter() - began, "intact": digest == expected.digest()}


async def retries(peer: str) -> dict[str, Any]:
    """Call with ``retry=True`` until the input ends; each call must get its own reply."""
    lost: Counter[str] = Counter()
    done = 0
    times = []
    ended = asyncio.create_task(input_ended())

    async def call_on(client: Client, first: int) -> None:
        nonlocal done
        number = first
        while not ended.done():
            number += IN_FLIGHT
            began = time.perf_counter()
            try:
                if number & 1:
                    request: Any = [number, 1]
                    reply = await client.call(None, peer, "Sum", request=request, retry=True, timeout=TIMEOUT)
                    right = reply == number + 1
                else:
                    request = {"message": str(number)}
                    reply = await client.call(None, peer, "Echo", request=request, retry=True, timeout=TIMEOUT)
                    right = reply == {"echoed": f"Echo: {number}"}
            except P2PError as error:
                lost[error.code] += 1
                continue
            if right:
                done += 1
            else:
                lost["wrong reply"] += 1
            times.append(time.perf_counter() - began)

    async with Client() as client:
        await asyncio.gather(*(call_on(client, first) for first in range(IN_FLIGHT)))
    return {"calls": done, "lost": dict(lost), "longest": max(times)}


async def input_ended() -> None:
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parts: dict[str, Any] = {"serve": serve, "calls": calls, "streams": streams, "retries": retries}
    result = asyncio.run(parts[sys.argv[1]](*sys.argv[2:]))
    if result is not None:
        print(json.dumps(result))
