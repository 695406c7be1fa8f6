"""Relay under many clients, one in a hundred of which misbehaves.

Run by hand, because it takes a minute and most of two cores: ``python -m tests.benchmarks.relay 10000``. It starts
``fastn-p2p relay`` as a process, and prints how long datagrams between well-behaved clients take, what is lost, and
the relay's memory and processor time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import struct
import sys
import time
from typing import Final

import uvloop

from fastn_p2p_actors.runtime.process_setup import raise_file_limit
from tests.support.daemons import CLI
from tests.support.processes import resident
from tests.support.relay_crowd import MISBEHAVIOURS, CrowdClient, connect_all, misbehave

from .processes import cpu_seconds

_SECONDS: Final = 20.0
_LAST_ARRIVALS: Final = 1.0
"""Seconds for the last datagrams to arrive."""


async def _measure(number: int, relay: int, address: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    clients = [CrowdClient(index, address) for index in range(number)]
    bad, good = clients[: number // 100], clients[number // 100 :]
    times: list[float] = []

    async def read(client: CrowdClient) -> None:
        while True:
            content = await client.receive_datagram()
            times.append(time.monotonic() - struct.unpack(">d", content[:8])[0])

    readers: list[asyncio.Task[None]] = []  # they answer pings, too
    began = time.monotonic()
    await connect_all(good, lambda client: readers.append(asyncio.create_task(read(client))))
    opened = time.monotonic() - began
    print(
        f"{len(good)} clients connected in {opened:.1f} s: {len(good) / opened:.0f}/s, "
        f"{resident(relay) / len(good) / 1024:.0f} KiB of memory each with all of the process"
    )

    kinds = list(zip(bad, itertools.cycle(MISBEHAVIOURS)))
    slow = [client.key for client, kind in kinds if kind == "never reads"] or [good[0].key]
    wrong = [asyncio.create_task(misbehave(client, kind, random.choice(slow))) for client, kind in kinds]
    sent = 0
    cpu, started = cpu_seconds(relay), loop.time()
    while loop.time() < started + _SECONDS:
        for _ in range(20):  # 20 datagrams each 20 ms: 1,000/s between random clients
            one, other = random.choice(good), random.choice(good)
            one.send_to(other.key, struct.pack(">d", time.monotonic()) + bytes(1000))
            sent += 1
        await asyncio.sleep(0.02)
    used = (cpu_seconds(relay) - cpu) / (loop.time() - started)
    for task in wrong:
        task.cancel()
    await asyncio.gather(*wrong, return_exceptions=True)
    await asyncio.sleep(_LAST_ARRIVALS)
    ended = [reader for reader in readers if reader.done()]
    times.sort()
    print(
        f"{sent} datagrams between them while {len(bad)} misbehave: {len(times)} arrived, "
        f"p50 {times[len(times) // 2] * 1e3:.1f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms, "
        f"max {times[-1] * 1e3:.0f} ms"
    )
    print(
        f"{len(ended)} well-behaved clients lost their connection; relay: {used:.0%} of a core, "
        f"{resident(relay) >> 20} MiB"
    )
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def _run(number: int) -> None:
    relay = await asyncio.create_subprocess_exec(
        *CLI,
        "relay",
        *("--listen", "127.0.0.1:0", "--clients", str(number * 2), "--qad-port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert relay.stdout is not None
    url = (await relay.stdout.readline()).decode().split()[-1]
    try:
        await _measure(number, relay.pid, ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])))
        began = time.monotonic()
        relay.send_signal(signal.SIGTERM)
        print(f"stopped with code {await relay.wait()} after {time.monotonic() - began:.1f} s")
    finally:
        if relay.returncode is None:
            relay.kill()


if __name__ == "__main__":
    raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
