"""A protocol for tests that does what it is told, and how daemons come to have it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.protocol import Peer, Protocol, request, stream
from fastn_p2p_client.session.session import Session

__all__ = ["BLOCK", "Order", "StreamOrder", "Trial", "install_protocols"]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = bytes(range(256)) * 1024
"""Bytes that "send" repeats."""


class Order(msgspec.Struct):
    """Order to a ``Trial``."""

    do: Literal["return", "wait", "raise", "refuse", "who", "counts", "ask"] = "return"
    size: int = 0
    """Bytes that "return" returns."""
    value: Any = None
    """Value that "return" returns, payload of "refuse", or peer that "ask" calls."""
    seconds: float = 60.0
    """How long "wait" waits."""


class StreamOrder(msgspec.Struct):
    """Order to a ``Trial`` about a session."""

    do: Literal[
        "echo", "count", "send", "refuse", "raise", "fail", "reset", "ignore", "hold", "exit", "who", "ponder"
    ] = "echo"
    size: int = 0
    """Bytes that "send" sends."""
    code: int = 0
    """Code of "reset"."""


class Trial(Protocol):
    """Public. Each of its processes counts the waits that have begun, ended and been cancelled, and the bytes that
    "send" has sent."""

    public = True
    counts: ClassVar[dict[str, int]] = {"begun": 0, "ended": 0, "cancelled": 0, "sent": 0}

    @request
    async def handle(self, order: Order, peer: Peer) -> Any:
        if order.do == "wait":
            return await self._wait(order.seconds)
        if order.do == "raise":
            raise RuntimeError("as ordered")
        if order.do == "refuse":
            raise ApplicationError("Refused", "as ordered", order.value)
        if order.do == "who":
            return {"key": peer.key.id52, "name": peer.name, "instance": self.context.instance}
        if order.do == "counts":
            return self.counts
        if order.do == "ask":
            mine = self.context
            return await mine.client.call(mine.identity, order.value, mine.protocol, request={"do": "who"})
        return order.value if order.value is not None else b"x" * order.size

    @stream
    async def converse(self, session: Session, order: StreamOrder) -> None:
        if order.do == "echo":
            async for chunk in session:
                await session.write(chunk)
        elif order.do == "count":
            from blake3 import blake3  # few tests need it

            digest, size = blake3(), 0
            async for chunk in session:
                digest.update(chunk)
                size += len(chunk)
            await session.write(f"{size} {digest.hexdigest()}".encode())
        elif order.do == "send":
            left = order.size
            while left:
                block = BLOCK[: min(left, len(BLOCK))]
                await session.write(block)
                self.counts["sent"] += len(block)
                left -= len(block)
        elif order.do == "who":
            await session.write(f"{session.peer.key.id52} {session.peer.name} {session.instance}".encode())
        else:
            await self._misbehave(session, order)

    async def _misbehave(self, session: Session, order: StreamOrder) -> None:
        if order.do == "refuse":
            raise ApplicationError("Refused", "as ordered", {"size": order.size})
        if order.do == "raise":
            raise RuntimeError("as ordered")
        if order.do == "ponder":  # and never accepts
            await self._wait(60)
        session.accept()
        if order.do == "fail":
            await session.read()
            raise RuntimeError("as ordered")
        if order.do == "reset":
            await session.read()
            session.reset(order.code)
        if order.do == "hold":  # reads nothing, and notices when the session ends
            self.counts["begun"] += 1
            try:
                while True:
                    await session.write(b"x" * 1024)
            finally:
                self.counts["ended"] += 1
        if order.do == "exit":
            await session.read()
            os._exit(1)

    async def _wait(self, seconds: float) -> str:
        self.counts["begun"] += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            raise
        self.counts["ended"] += 1
        return "waited"


def install_protocols(directory: Path, **protocols: str) -> dict[str, str]:
    """Makes ``directory`` a place where packages are installed that offers these protocols (name → module:class),
    ``Trial`` and ``Conformance``; returns the environment of a daemon that finds them."""
    entries = {
        "Trial": "tests.support.protocols:Trial",
        "Conformance": "fastn_p2p_client.testing:Conformance",
        **protocols,
    }
    metadata = directory / "protocols_for_tests-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: protocols-for-tests\nVersion: 1\n")
    lines = ["[fastn_p2p.protocols]", *(f"{name} = {target}" for name, target in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {"PYTHONPATH": f"{directory}:{ROOT}"}
