"""A relay with ten thousand clients, one in a hundred of which misbehaves: the others lose nothing."""

from __future__ import annotations

import asyncio
import itertools
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.runtime.process_setup import raise_file_limit
from tests.support.daemons import CLI, DEADLINE
from tests.support.relay_clients import signed_packet, z32
from tests.support.relay_crowd import MISBEHAVIOURS, CrowdClient, connect_all, misbehave

_CLIENTS: Final = 10_000
_BAD: Final = _CLIENTS // 100
_SPARE: Final = 100
"""Seats of the relay for what a test asks beside its clients."""
_ROUNDS: Final = 3
_MOST_MEMORY: Final = 400 << 20
"""Bytes that the relay's process may have had at most; 240 MiB were measured."""
_EFFECTS: Final = (
    "clients_misbehaved",
    "connections_expired",
    "handshakes_failed",
    "datagrams_dropped_full",
    "packets_refused",
)
"""Counters that show that the clients do misbehave, and that the relay acts on it."""


class _Relay:
    """``fastn-p2p relay``, on ports of loopback."""

    def __init__(self, process: asyncio.subprocess.Process, urls: dict[str, str], http: aiohttp.ClientSession) -> None:
        self.process = process
        self.urls = urls
        self.http = http

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.urls["relay"].rstrip("/").rpartition(":")[2])

    @property
    def peak_memory(self) -> int:
        """Bytes that the process has held at most."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10

    async def counters(self) -> dict[str, float]:
        """Return its metrics by name."""
        async with self.http.get(self.urls["metrics"]) as response:
            lines = (await response.text()).splitlines()
        pairs = (line.split() for line in lines if line.startswith("fastn_p2p_relay_"))
        return {name.removeprefix("fastn_p2p_relay_").removesuffix("_total"): float(value) for name, value in pairs}

    async def publish_and_find(self, signer: SigningKey, sequence: int) -> None:
        """Use its directory."""
        url, packet = f"{self.urls['directory']}/{z32(signer)}", signed_packet(signer, sequence)
        async with self.http.put(url, data=packet) as response:
            assert response.status == 204, await response.text()
        async with self.http.get(url) as response:
            assert await response.read() == packet

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


@asynccontextmanager
async def _running_relay() -> AsyncIterator[_Relay]:
    options = ("--listen", "127.0.0.1:0", "--qad-port", "0", "--metrics", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        *(*CLI, "relay", *options, "--clients", str(_CLIENTS + _SPARE)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE):
            lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
        async with aiohttp.ClientSession() as http:
            yield _Relay(process, {line[0]: line[-1] for line in lines}, http)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class _Honest:
    """Clients that send to each other."""

    def __init__(self, clients: list[CrowdClient]) -> None:
        self.clients = clients
        self.readers: list[asyncio.Task[None]] = []
        self._arrived: set[tuple[int, bytes]] = set()
        self._expected = 0
        self._complete = asyncio.Event()

    async def connect(self) -> None:
        await connect_all(self.clients, lambda client: self.readers.append(asyncio.create_task(self._read(client))))

    async def _read(self, client: CrowdClient) -> None:
        while True:
            content = await client.receive_datagram()
            self._arrived.add((content[0], client.key))
            if len(self._arrived) == self._expected:
                self._complete.set()

    async def exchange(self, number: int) -> None:
        """Have each send a datagram to the next one, and wait for all."""
        self._expected += len(self.clients)
        self._complete.clear()
        for each, other in zip(self.clients, [*self.clients[1:], self.clients[0]], strict=True):
            each.send_to(other.key, bytes((number,)) + bytes(500))
        try:
            async with asyncio.timeout(DEADLINE):
                await self._complete.wait()
        except TimeoutError:
            pytest.fail(f"round {number}: {len(self._arrived)} of {self._expected} datagrams arrived")

    async def close(self) -> None:
        for reader in self.readers:
            reader.cancel()
        await asyncio.gather(*self.readers, return_exceptions=True)
        for client in self.clients:
            client.abort()


@pytest.mark.lab_long
@pytest.mark.timeout(600)
async def test_the_others_notice_nothing() -> None:
    raise_file_limit()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < _CLIENTS + 1000:
        pytest.skip(f"a process may have too few open files for {_CLIENTS} connections")
    async with _running_relay() as relay:
        clients = [CrowdClient(number, relay.address) for number in range(_CLIENTS)]
        bad, honest = clients[:_BAD], _Honest(clients[_BAD:])
        signer = SigningKey.generate()
        wrong: list[asyncio.Task[None]] = []
        try:
            await honest.connect()
            kinds = list(zip(bad, itertools.cycle(MISBEHAVIOURS)))
            slow = itertools.cycle([client.key for client, kind in kinds if kind == "never reads"])
            wrong += [asyncio.create_task(misbehave(client, kind, next(slow))) for client, kind in kinds]
            counters, rounds = await relay.counters(), itertools.count()
            async with asyncio.timeout(5 * DEADLINE):
                for number in rounds:
                    await honest.exchange(number)
                    await relay.publish_and_find(signer, 1 + number)
                    counters = await relay.counters()
                    if number >= _ROUNDS and all(counters[name] for name in _EFFECTS):
                        break
            newcomer = CrowdClient(_CLIENTS, relay.address)
            async with asyncio.timeout(DEADLINE):
                await newcomer.connect()
            newcomer.abort()
            print(f"{counters}; at most {relay.peak_memory >> 20} MiB")
            assert not [reader for reader in honest.readers if reader.done()], "none lost its connection"
            assert not [task for task in wrong if task.done()], "they misbehave to the end"
            assert counters["errors"] == 0
            assert relay.peak_memory < _MOST_MEMORY
        finally:
            for task in wrong:
                task.cancel()
            await asyncio.gather(*wrong, return_exceptions=True)
            await honest.close()
        assert await relay.stop() == 0
