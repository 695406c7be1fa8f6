"""``RegistrationLoop``: register until the network process has accepted or rejected every binding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest

from fastn_p2p_client.errors import BindingNotFound, ConnectionLost, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, RegisterBinding, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.serving.registration import RegistrationLoop


@dataclass(frozen=True)
class Named:
    identity: str
    protocol: str
    instance: str


ONE, TWO = Named("alice", "Echo", "one"), Named("alice", "Echo", "two")


class StubResponse:
    def __init__(self, reply: Any) -> None:
        self.header = encode(reply)
        self.payload = b""


class StubChannel:
    """Answers each registration with the next outcome; with ``Ack`` once there is none left."""

    def __init__(self, *outcomes: P2PError | None) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[Any] = []

    async def request(self, message: Any, *, timeout: float) -> StubResponse:
        self.sent.append(message)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, ConnectionLost):
            raise outcome
        return StubResponse(Ack() if outcome is None else ErrorReply.of(outcome))


class Loop(RegistrationLoop[Named]):
    def __init__(self, channel: StubChannel, *bindings: Named) -> None:
        super().__init__(cast(RequestChannel, channel))
        self._pending = list(bindings)
        self.accepted: list[Named] = []
        self.rejected: list[tuple[Named, str]] = []
        self.complete = asyncio.Event()

    def _registration_of(self, binding: Named) -> RegisterBinding:
        return RegisterBinding(binding.identity, binding.protocol, binding.instance, ("peers",), b"grant")

    async def _register_pending(self) -> bool:
        later = []
        for binding in self._pending:
            try:
                await self.register(binding)
                error = None
            except ConnectionLost:
                raise
            except P2PError as reason:
                error = reason
            if not self._is_settled(binding, error):
                later.append(binding)
        self._pending = later
        return not later

    def _on_accepted(self, binding: Named) -> None:
        self.accepted.append(binding)

    def _on_rejected(self, binding: Named, error: P2PError) -> None:
        self.rejected.append((binding, error.code))

    def _on_registered(self) -> None:
        self.complete.set()


async def register(loop: Loop) -> None:
    loop.start_registering()
    async with asyncio.timeout(5):
        await loop.complete.wait()


async def test_registers_every_pending_binding() -> None:
    loop = Loop(StubChannel(), ONE, TWO)
    await register(loop)
    assert loop.accepted == [ONE, TWO]


async def test_retries_after_a_retryable_error_only() -> None:
    gone = BindingNotFound(identity="alice", protocol="Echo", instance="one")
    channel = StubChannel(gone, Overloaded(what="registrations", limit=1))
    assert not gone.retryable
    loop = Loop(channel, ONE, TWO)
    await register(loop)
    assert loop.rejected == [(ONE, gone.code)]
    assert loop.accepted == [TWO]
    assert [each.instance for each in channel.sent] == ["one", "two", "two"]


async def test_ends_when_the_connection_is_lost_and_starts_again_after_the_next() -> None:
    channel = StubChannel(ConnectionLost(what="the network process"))
    loop = Loop(channel, ONE)
    loop.start_registering()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not loop.complete.is_set()
    await register(loop)
    assert loop.accepted == [ONE]


async def test_unregister_raises_the_error_of_the_network_process() -> None:
    loop = Loop(StubChannel(Overloaded(what="registrations", limit=1)))
    with pytest.raises(Overloaded):
        await loop.unregister(ONE)
    await loop.unregister(ONE)
