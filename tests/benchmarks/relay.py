"""Relay under many clients, one in a hundred of which misbehaves.

Run by hand, because it takes a minute and most of two cores: ``python -m tests.benchmarks.relay 10000``. It starts
``fastn-p2p relay`` as a process, and prints how long datagrams between well-behaved clients take, what is lost, and
the relay's memory and processor time.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Final

import uvloop
from nacl.signing import SigningKey

from fastn_p2p.relay.frames import CLIENT_AUTH, DATAGRAM_TO_CLIENT, DATAGRAM_TO_RELAY
from fastn_p2p.relay.handshake import signed_message
from fastn_p2p_actors.runtime.process_setup import raise_file_limit
from tests.support.processes import resident

PORT: Final = 3349
ROUND: Final = 500
"""Connections that are opened at the same time."""
_REQUEST: Final = (
    b"GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: iroh-relay-v2\r\n\r\n"
)


def masked(frame: bytes) -> bytes:
    """Return a client's binary WebSocket message. Its mask is zero, so that this side costs little."""
    size = len(frame)
    head = bytes((0x82, 0x80 | size)) if size < 126 else struct.pack(">BBH", 0x82, 0xFE, size)
    return head + bytes(4) + frame


class Client:
    """Client on a plain stream: ten thousand of aiohttp's would cost more than the relay."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.signer = SigningKey.generate()
        self.key = bytes(self.signer.verify_key)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", PORT, local_addr=(self._host, 0), limit=1 << 17
        )
        self.writer.write(_REQUEST)

    async def connect(self) -> None:
        await self.open()
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0], head
        challenge = (await self.receive())[1:]
        signature = self.signer.sign(signed_message(challenge)).signature
        self.send(bytes((CLIENT_AUTH,)) + self.key + b"\x40" + signature)
        assert await self.receive() == b"\x02"

    def send(self, frame: bytes) -> None:
        self.writer.write(masked(frame))

    async def receive(self) -> bytes:
        """Return the next frame. Answer pings."""
        while True:
            kind, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            frame = await self.reader.readexactly(size)
            if kind != 0x82:
                raise ConnectionError(f"closed: {frame!r}")
            if frame[0] != 9:
                return frame
            self.send(b"\x0a" + frame[1:])


async def misbehave(client: Client, number: int, receiver: bytes, until: float) -> None:
    """Misbehave in one of six ways, again after each disconnect, until a moment of the loop's clock."""
    kind = number % 6
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        try:
            if kind == 0:  # half a handshake
                await client.open()
                await asyncio.sleep(3)
            elif kind == 1:  # garbage
                await client.open()
                client.writer.write(secrets.token_bytes(5000))
                await client.reader.read()
            elif kind == 2:  # a slow reader, that others flood
                await client.connect()
                client.reader._transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(until - loop.time())
            elif kind == 3:  # a flood to one client
                await client.connect()
                while loop.time() < until:
                    client.send(bytes((DATAGRAM_TO_RELAY,)) + receiver + b"\0" + bytes(1200))
                    await client.writer.drain()
            elif kind == 4:  # huge frames
                await client.connect()
                client.writer.write(struct.pack(">BBQ", 0x82, 0xFF, 1 << 40) + bytes(1 << 20))
                await client.reader.read()
            else:  # frames of no known type
                await client.connect()
                client.send(b"\x3f" + bytes(100))
                await client.receive()
        except (ConnectionError, asyncio.IncompleteReadError, AssertionError):
            pass
        client.writer.transport.abort()
        await asyncio.sleep(0.5)


async def measure(number: int, seconds: float, relay: int) -> None:
    loop = asyncio.get_running_loop()
    clients = [Client(f"127.0.{index // 250}.{1 + index % 250}") for index in range(number)]
    bad, good = clients[: number // 100], clients[number // 100 :]
    times: list[float] = []

    async def read(client: Client) -> None:
        while True:
            frame = await client.receive()
            if frame[0] == DATAGRAM_TO_CLIENT:
                times.append(time.monotonic() - struct.unpack(">d", frame[34:42])[0])

    readers: list[asyncio.Task[None]] = []
    began = time.monotonic()
    for start in range(0, len(good), ROUND):
        connecting = good[start : start + ROUND]
        await asyncio.gather(*(client.connect() for client in connecting))
        readers += [asyncio.create_task(read(client)) for client in connecting]  # they answer pings from now on
    opened = time.monotonic() - began
    print(
        f"{len(good)} clients connected in {opened:.1f} s: {len(good) / opened:.0f}/s, "
        f"{resident(relay) / len(good) / 1024:.0f} KiB of memory each with all of the process"
    )

    until = loop.time() + seconds
    slow = [client.key for index, client in enumerate(bad) if index % 6 == 2]
    wrong = [
        asyncio.create_task(misbehave(client, index, random.choice(slow or [good[0].key]), until))
        for index, client in enumerate(bad)
    ]
    sent = 0
    cpu = cpu_of(relay)
    while loop.time() < until - 1:
        for _ in range(20):  # 20 datagrams each 20 ms: 1,000/s between random clients
            one, other = random.choice(good), random.choice(good)
            content = struct.pack(">d", time.monotonic()) + bytes(1000)
            one.send(bytes((DATAGRAM_TO_RELAY,)) + other.key + b"\0" + content)
            sent += 1
        await asyncio.sleep(0.02)
    used = (cpu_of(relay) - cpu) / (seconds - 1)
    await asyncio.gather(*wrong, return_exceptions=True)
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


def cpu_of(pid: int) -> float:
    """Return the processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(number: int, seconds: float) -> None:
    relay = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fastn_p2p",
        "relay",
        "--listen",
        f"127.0.0.1:{PORT}",
        "--clients",
        str(number * 2),
        "--qad-port",
        "0",
        stdout=asyncio.subprocess.PIPE,
    )
    assert relay.stdout is not None
    await relay.stdout.readline()
    try:
        await measure(number, seconds, relay.pid)
        began = time.monotonic()
        relay.send_signal(signal.SIGTERM)
        print(f"stopped with code {await relay.wait()} after {time.monotonic() - began:.1f} s")
    finally:
        if relay.returncode is None:
            relay.kill()


if __name__ == "__main__":
    raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, 20.0))
