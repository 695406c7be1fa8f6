"""Hostile peers that go on until they are told to stop: endpoints of their own on the raw binding.

They run in a process of their own, which ``siege.attack`` starts (``python -m tests.fuzz.attackers MODULE ATTACK``).
The first line on its stdin is an ``Order`` in JSON. It answers ``started`` once each attacker has begun, goes on until
the next line, and answers with a ``Report``.

An attack is an ``async def attack(attacker: Attacker) -> None`` of any module. It is run for each attacker side by
side, again when it returns or raises ``IrohError``, as it does where a connection is closed, and cancelled at the end.
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
"""Seconds before an attacker whose connection was closed, or refused, tries again."""


class Order(msgspec.Struct):
    """What is attacked, and by how many.

    Attributes:
        endpoint, addresses: of the daemon.
        identity: the key of an identity there.
        attackers: how many there are, each with an endpoint id of its own.
        options: for the attack.
    """

    endpoint: bytes
    addresses: list[str]
    identity: bytes
    attackers: int
    options: dict[str, Any] = {}


class Report(msgspec.Struct):
    """How it went.

    Attributes:
        connections: handshakes that were completed.
        refused: attempts that ended without a connection.
        reasons: why the daemon closed connections, and how often.
        counts: what the attack counted; ``written`` are bytes that QUIC took.
        errors: faults of the attack itself.
    """

    connections: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}
    counts: dict[str, int] = {}
    errors: list[str] = []


class Loopback(Preset):
    """Loopback only, no relay, no discovery."""

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")


class Attacker:
    """One endpoint, and an identity that it may speak for.

    Attributes:
        number: from 0.
        order: of the attack.
        signer: its identity.
        counts: what the attack counts.
    """

    def __init__(self, number: int, order: Order) -> None:
        self.number = number
        self.order = order
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.connections = 0
        self.refused = 0
        self.signer = Signer(f"attacker {number}")
        self._endpoint: Endpoint | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._kept: list[object] = []

    @property
    def begun(self) -> bool:
        """Whether it has done something that it counts, or was refused or closed."""
        return bool(self.counts or self.refused or self.reasons)

    @property
    def options(self) -> dict[str, Any]:
        return self.order.options

    async def endpoint(self, *, fresh: bool = False) -> Endpoint:
        """Its endpoint, made when first asked for; ``fresh``: another one, with another endpoint id."""
        if self._endpoint is None or fresh:
            options = EndpointOptions(preset=Loopback(), secret_key=os.urandom(32), alpns=[b"attacker"])
            self._endpoint = await Endpoint.bind(options)
        return self._endpoint

    async def connect(self) -> Connection:
        """Another connection to the daemon. Raises IrohError where it is refused."""
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
        """Open the call channel, and send a hello and whatever follows. Nobody reads what comes back."""
        stream = await connection.open_bi()
        self._kept.append(stream)
        sending = stream.send()
        await sending.write_all(HELLO + b"".join(more))
        return sending

    def introduction(self, signer: Signer | None = None) -> bytes:
        """The frame that shows an identity, its own unless another is given; ``endpoint`` must have been awaited."""
        assert self._endpoint is not None
        now = int(time.time())
        endpoint = bytes(self._endpoint.id().to_bytes())
        blob = (signer or self.signer).delegation(endpoint=endpoint, not_before=now - 10, not_after=now + 1000)
        return encode_frame(wire.Introduce(blob))

    def keep(self, thing: object) -> None:
        """Hold a stream: QUIC resets those that are dropped."""
        self._kept.append(thing)

    async def write(self, stream: SendStream, data: bytes) -> None:
        """``write_all`` that counts."""
        await stream.write_all(data)
        self.counts["written"] += len(data)

    async def run(self, attack: Attack) -> None:
        """Attack again and again."""
        while True:
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
    report = Report()
    for task in tasks:
        if task.done() and not task.cancelled():
            report.errors.append(repr(task.exception()))
        task.cancel()
    await asyncio.wait(tasks, timeout=1)
    report.connections = sum(each.connections for each in attackers)
    report.refused = sum(each.refused for each in attackers)
    report.reasons = dict(sum((each.reasons for each in attackers), Counter[str]()))
    report.counts = dict(sum((each.counts for each in attackers), Counter[str]()))
    await asyncio.wait([asyncio.create_task(each.close()) for each in attackers], timeout=3)
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()
    os._exit(0)  # whatever still runs


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
