"""``RegistrationLoop``: register until the network process has accepted or rejected every binding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest
from nacl.signing import SigningKey

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import BindingNotFound, ConnectionLost, Forbidden, Overloaded, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Grant, RegisterBinding, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.serving.handlers import ProtocolHandlers
from fastn_p2p_client.serving.registrar import local_registrar
from fastn_p2p_client.serving.registration_loop import RegistrationLoop


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
        self.connected = asyncio.Event()

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
            if not self._is_resolved(binding, error):
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
    async with asyncio.timeout(50):
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


class StubClient:
    """Gateway that ends in the middle of the first request for a grant, once there was one."""

    transport = "native"

    def __init__(self) -> None:
        self.home = Home.find("/nowhere")
        self.asked = 0

    async def control(self, message: Any) -> Grant:
        self.asked += 1
        if self.asked == 2:
            raise ConnectionLost(what="the gateway")
        return Grant(b"grant", bytes(SigningKey(bytes(32)).verify_key), True)


async def test_a_gateway_that_ends_while_a_grant_is_renewed_is_asked_again() -> None:
    """The connection to the network process stands: without another attempt the binding would stay unregistered."""
    ready = asyncio.Event()
    registrar = local_registrar(cast(Client, StubClient()), ready)
    channel = StubChannel(Forbidden(role="a program", request="RegisterBinding"), Forbidden(role="x", request="y"))
    registrar._channel = cast(RequestChannel, channel)
    registration = await registrar.add("alice", "Echo", "one", ProtocolHandlers(), ("peers",))
    registrar.initial_set_complete()
    registrar._pending = [registration]
    registrar.start_registering()
    async with asyncio.timeout(50):
        await ready.wait()
    assert len(channel.sent) == 3
    registrar.stop()
