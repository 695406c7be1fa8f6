"""Hostile peers that attack until they are stopped: endpoints of their own on the raw binding.

They run in a process of their own, which ``siege.attack`` starts (``python -m tests.support.attackers MODULE ATTACK``).
The first line on its stdin is an ``Order`` in JSON. The process prints ``started`` once each attacker has begun,
continues until the next line, and prints a ``Report``.

An attack is an ``async def attack(attacker: Attacker) -> None`` of any module. It runs for all attackers concurrently.
It is repeated when it returns, or raises ``IrohError`` because a connection was closed, and is cancelled at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import msgspec
from iroh.iroh_ffi import (
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointId,
    EndpointOptions,
    IrohError,
    Preset,
    RelayMode,
    SendStream,
)

from fastn_p2p_actors.network.transport.iroh_patches import install
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_actors.network.wire.messages import ALPN, WIRE_VERSION
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.support.signer import Signer

__all__ = ["Attack", "Attacker", "Loopback", "Order", "Report"]

HELLO: Final = encode_frame(wire.Hello(WIRE_VERSION, b"attacker", MAX_PAYLOAD, 100))
_CONNECT_TIMEOUT: Final = 5.0
_PAUSE: Final = 0.02
"""Seconds until an attacker repeats its attack after its connection was closed or refused."""


class Order(msgspec.Struct):
    """Target of an attack, and the number of attackers.

    Attributes:
        endpoint: public key of the daemon's endpoint.
        addresses: IP addresses and ports of the daemon.
        identity: public key of an identity of the daemon.
        attackers: number of attackers, each with an endpoint id of its own.
        options: options of the attack.
    """

    endpoint: bytes
    addresses: list[str]
    identity: bytes
    attackers: int
    options: dict[str, Any] = {}


class Report(msgspec.Struct):
    """Outcome of an attack.

    Attributes:
        connections: number of completed handshakes.
        refused: number of attempts that ended without a connection.
        reasons: close reasons of the daemon, with their number.
        counts: counters of the attack; ``written`` are bytes that QUIC accepted.
        errors: faults of the attack itself.
        pid: process of the attackers.
    """

    connections: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}
    counts: dict[str, int] = {}
    errors: list[str] = []
    pid: int = 0


class Loopback(Preset):
    """Preset for the loopback interface only, without relay and discovery."""

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")


class Attacker:
    """Hostile peer with one endpoint and one identity.

    Attributes:
        number: number of the attacker, from 0.
        order: target of the attack.
        signer: identity of the attacker.
        counts: counters of the attack.
        over: true when the task of ``run`` is cancelled.
    """

    def __init__(self, number: int, order: Order) -> None:
        self.number = number
        self.order = order
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.connections = 0
        self.refused = 0
        self.over = False
        self.signer = Signer(f"attacker {number}")
        self._endpoint: Endpoint | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._kept: list[object] = []

    @property
    def begun(self) -> bool:
        """Return whether the attack has counted something, or a connection was refused or closed."""
        return bool(self.counts or self.refused or self.reasons)

    @property
    def options(self) -> dict[str, Any]:
        return self.order.options

    async def endpoint(self, *, fresh: bool = False) -> Endpoint:
        """Return the endpoint, created at the first call; with ``fresh`` a new one with another endpoint id."""
        if self._endpoint is None or fresh:
            options = EndpointOptions(preset=Loopback(), secret_key=os.urandom(32), alpns=[b"attacker"])
            self._endpoint = await Endpoint.bind(options)
        return self._endpoint

    async def connect(self) -> Connection:
        """Open another connection to the daemon.

        Raises:
            IrohError: the daemon refuses it.
            TimeoutError: the handshake takes too long.
        """
        endpoint = await self.endpoint()
        address = EndpointAddr(EndpointId.from_bytes(self.order.endpoint), None, self.order.addresses)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                connection = await endpoint.connect(address, ALPN)
        except (IrohError, TimeoutError):
            self.refused += 1
            raise
        self.connections += 1
        task = asyncio.create_task(self._watch(connection))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
        return connection

    async def _watch(self, connection: Connection) -> None:
        reason = str(await connection.closed())
        self.reasons[reason] += 1

    async def greet(self, connection: Connection, *more: bytes) -> SendStream:
        """Open the call channel, and send a hello and ``more``. The answers are not read."""
        stream = await connection.open_bi()
        self._kept.append(stream)
        sending = stream.send()
        await sending.write_all(HELLO + b"".join(more))
        return sending

    def introduction(self, signer: Signer | None = None) -> bytes:
        """Return the frame that proves an identity, by default the own one. ``endpoint`` must have been awaited."""
        assert self._endpoint is not None
        now = int(time.time())
        endpoint = bytes(self._endpoint.id().to_bytes())
        blob = (signer or self.signer).delegation(endpoint=endpoint, not_before=now - 10, not_after=now + 1000)
        return encode_frame(wire.Introduce(blob))

    def keep(self, thing: object) -> None:
        """Keep a reference to a stream, because QUIC resets streams without one."""
        self._kept.append(thing)

    async def write(self, stream: SendStream, data: bytes) -> None:
        """Write all bytes, and count them."""
        await stream.write_all(data)
        self.counts["written"] += len(data)

    async def run(self, attack: Attack) -> None:
        """Repeat the attack until the task is cancelled."""
        while not self.over:  # errors of streams that end at that moment hide the cancellation
            self._kept.clear()
            with contextlib.suppress(IrohError, TimeoutError):
                await attack(self)
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()


Attack: TypeAlias = Callable[[Attacker], Coroutine[Any, Any, None]]


async def _main(module: str, name: str) -> None:
    loop = asyncio.get_running_loop()
    install(loop)
    attack: Attack = getattr(importlib.import_module(module), name)
    order = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.buffer.readline), type=Order)
    attackers = [Attacker(number, order) for number in range(order.attackers)]
    tasks = [asyncio.create_task(each.run(attack)) for each in attackers]
    while not all(each.begun or task.done() for each, task in zip(attackers, tasks, strict=True)):  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE)
    sys.stdout.buffer.write(b"started\n")
    sys.stdout.buffer.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.readline)
    report = Report(pid=os.getpid())
    for each, task in zip(attackers, tasks, strict=True):
        if task.done() and not task.cancelled():
            report.errors.append(repr(task.exception()))
        each.over = True
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    report.connections = sum(each.connections for each in attackers)
    report.refused = sum(each.refused for each in attackers)
    report.reasons = dict(sum((each.reasons for each in attackers), Counter[str]()))
    report.counts = dict(sum((each.counts for each in attackers), Counter[str]()))
    await asyncio.wait([asyncio.create_task(each.close()) for each in attackers], timeout=1)
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()
    os._exit(0)  # also if tasks still run


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
