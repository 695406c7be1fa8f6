"""The identity actor between a stub network process and a stub gateway: registration, serving, drain."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.identity.hosted_binding import HostedBinding
from fastn_p2p_actors.identity.messages import Activate, BindingStates, Deactivate, GetBindingStates, IdentityActorReply
from fastn_p2p_actors.identity.network_registration import NetworkRegistration
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.runtime.grants import make_grant
from fastn_p2p_actors.storage.identity_store import BindingFile, IdentityFile, IdentityStore
from fastn_p2p_client.errors import (
    BadMessage,
    DaemonBusy,
    Forbidden,
    HandlerFailed,
    IdentityNotFound,
    InvalidConfig,
    P2PError,
    ProtocolNotFound,
    ProtocolNotInstalled,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    ErrorReply,
    GetStatus,
    RegisterBinding,
    RegisterIdentity,
    UnregisterBinding,
    UnregisterIdentity,
    encode,
)
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ready
from tests.support.failing_protocols import install
from tests.support.stub_actors import GRANT_KEY, KEYS, StubNetwork, StubSupervisor, temporary_home

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    with temporary_home() as made:
        IdentityStore(made).create_identity(IdentityFile(name="alice", id52=KEYS[0].id52, created="", online=True))
        yield made


def bind(home: Home, protocol: str = "Echo", instance: str = "default", config: Any = None, *allow: str) -> None:
    raw = msgspec.Raw(msgspec.json.encode(config or {}))
    record = BindingFile(protocol=protocol, instance=instance, allow=allow, config=raw)
    IdentityStore(home).prepare_binding("alice", record).commit()


def diary(home: Home, instance: str = "default") -> list[str]:
    path = home.identities / "alice" / "protocols" / "Diary" / f"{instance}.diary"
    return path.read_text().splitlines() if path.exists() else []


class Running:
    def __init__(
        self, network: StubNetwork, supervisor: StubSupervisor, context: ActorContext, link: RequestChannel
    ) -> None:
        self.network = network
        self.supervisor = supervisor
        self.context = context
        self.link = link

    async def ask(self, message: msgspec.Struct, config: Any = None) -> IdentityActorReply:
        payload = b"" if config is None else msgspec.json.encode(config)
        if isinstance(message, Activate | Deactivate):
            message = msgspec.structs.replace(message, grant=make_grant(GRANT_KEY, "alice"))
        answer = await self.link.request(message, payload, timeout=60)
        reply: IdentityActorReply = msgspec.msgpack.decode(answer.header, type=IdentityActorReply)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        return reply

    async def states(self) -> dict[str, str]:
        reply = await self.ask(GetBindingStates())
        assert isinstance(reply, BindingStates)
        return {f"{binding.protocol}/{binding.instance}": binding.state for binding in reply.bindings}

    async def call(self, protocol: str, instance: str, request: object, **options: Any) -> Any:
        return await self.network.call("alice", protocol, instance, request, **options)


@asynccontextmanager
async def alice(home: Home) -> AsyncIterator[Running]:
    """Yield a ready alice with a network process, and the gateway's request channel to her."""
    network, supervisor = StubNetwork(home), StubSupervisor(home)
    async with asyncio.timeout(60):
        context = await supervisor.start("alice")
        link = RequestChannel(home.mailbox("identity-alice"), "identity-alice")
        link.open()
        running = Running(network, supervisor, context, link)
        try:
            yield running
        finally:
            link.close()
            await supervisor.close()
            running.network.close()


async def test_ready_once_the_network_knows_everything(home: Home) -> None:
    bind(home)
    bind(home, "Echo", "friends", {"max_length": 2}, "carol")
    bind(home, "Diary")
    async with alice(home) as running:
        assert [type(message) for message in running.network.received] == [
            RegisterIdentity,
            RegisterBinding,
            RegisterBinding,
            RegisterBinding,
        ]
        allowed = {(serve.protocol, serve.instance): serve.allow for serve in running.network.serving.values()}
        assert allowed == {
            ("Echo", "default"): ("everyone",),  # it says that it is public
            ("Echo", "friends"): ("carol",),
            ("Diary", "default"): ("peers",),
        }
        assert await running.call("Echo", "default", HI) == ECHOED
        refused = await running.call("Echo", "friends", {"message": "too long"})
        assert isinstance(refused, ApplicationErrorReply)
        assert set((await running.states()).values()) == {"serving"}


async def test_registrations_of_identity_and_bindings_are_sent_together(home: Home) -> None:
    """If they arrived one after the other, the network process could bring the identity online without its bindings."""

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.mailbox("network")))
        listener.listen()
        listener.setblocking(False)
        link = RequestChannel(home.mailbox("network"), "network", on_connect=lambda: registration.start_registering())
        hosted = [HostedBinding("alice", KEYS[0], "Echo", instance, home.path) for instance in ("one", "two")]
        registration = NetworkRegistration(link, "alice", b"grant", lambda: hosted, lambda: True)
        registration.started.set()
        link.open()
        async with asyncio.timeout(50):
            network, _ = await asyncio.get_running_loop().sock_accept(listener)
            with network:
                network.sendall(GREETING + ready("ROUTER"))
                said = b""
                while encode(RegisterIdentity("alice", b"grant")) not in said:
                    await asyncio.sleep(0)  # a look at every turn of the loop
                    with contextlib.suppress(BlockingIOError):
                        said += network.recv(10_000)
                for each in hosted:
                    assert encode(RegisterBinding("alice", "Echo", each.instance, each.access, b"grant")) in said
                registration.stop_registering()
                link.close()


async def test_not_ready_before_the_network_is_there(home: Home) -> None:
    bind(home)
    supervisor = StubSupervisor(home)
    starting = asyncio.ensure_future(supervisor.start("alice"))
    await asyncio.wait([starting], timeout=0.2)
    assert not starting.done()
    network = StubNetwork(home)
    async with asyncio.timeout(50):
        context = await starting
    assert context.is_ready.is_set()
    assert await network.call("alice", "Echo", "default", HI) == ECHOED
    await supervisor.close()
    network.close()


async def test_announcing_is_tried_again_while_the_vault_is_down_and_not_when_it_is_forbidden(home: Home) -> None:
    network, supervisor = StubNetwork(home), StubSupervisor(home)
    network.refuse[RegisterIdentity] = DaemonBusy(actor="vault")
    starting = asyncio.ensure_future(supervisor.start("alice"))
    await network.wait_for_message(RegisterIdentity, 3)
    assert not starting.done()
    network.refuse.clear()
    async with asyncio.timeout(50):
        await starting
    await supervisor.stop("alice")
    network.refuse[RegisterIdentity] = Forbidden(role="x", request="y")
    with pytest.raises(Forbidden):
        await supervisor.start("alice")
    supervisor.running.clear()
    await supervisor.close()
    network.close()


async def test_identity_that_does_not_exist_does_not_start(home: Home) -> None:
    supervisor = StubSupervisor(home)
    with pytest.raises(IdentityNotFound):
        await supervisor.start("nobody")
    supervisor.running.clear()
    await supervisor.close()


async def test_everything_is_registered_again_after_a_reconnection(home: Home) -> None:
    bind(home)
    async with alice(home) as running:
        IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance="live"))
        await running.ask(Activate("Diary", "live"))
        _, unanswered = running.network.deliver("alice", "Diary", "live", "wait")
        running.network.close()
        running.network = network = StubNetwork(home)
        await network.until(lambda: len(network.serving) == 2)
        assert await running.call("Echo", "default", HI) == ECHOED
        assert not unanswered.done()


async def test_failing_binding_does_not_affect_others(home: Home) -> None:
    bind(home)
    bind(home, "NotInstalled")
    bind(home, "NoModule")
    bind(home, "NoProtocol")
    bind(home, "TwoHandlers")
    for hook in ("check", "create", "activate"):
        bind(home, "Diary", f"fails-{hook}", {"fail_in": hook})
    bind(home, "Diary", "exits", {"exit_in": "activate"})
    bind(home, "Diary", "config", {"unknown": 1})
    bind(home, "Diary", "damaged")
    (IdentityStore(home).workspace("alice", "Diary", "damaged") / "config.json").write_bytes(b"{")
    async with alice(home) as running:
        assert await running.call("Echo", "default", HI) == ECHOED
        states = await running.states()
        assert states.pop("Echo/default") == "serving"
        assert "Diary/damaged" not in states
        assert len(states) == 9
        assert all(state.startswith("failed: ") for state in states.values()), states
        for binding, words in (
            ("NotInstalled/default", "installed"),
            ("NoModule/default", "ModuleNotFoundError"),
            ("NoProtocol/default", "not a subclass"),
            ("TwoHandlers/default", "several request handlers"),
            ("Diary/fails-check", "check fails as configured"),
            ("Diary/fails-activate", "on_activate failed: ValueError"),
            ("Diary/exits", "SystemExit"),
            ("Diary/config", "unknown"),
        ):
            assert words in states[binding]


async def test_binding_that_the_network_refuses_is_failed(home: Home) -> None:
    bind(home)
    network, supervisor = StubNetwork(home), StubSupervisor(home)
    network.refuse[RegisterBinding] = Forbidden(role="x", request="y")
    await supervisor.start("alice")
    link = RequestChannel(home.mailbox("identity-alice"), "identity-alice")
    link.open()
    states = await Running(network, supervisor, supervisor.running["alice"][0], link).states()
    assert states["Echo/default"].startswith("failed: ")
    link.close()
    await supervisor.close()
    network.close()


async def test_activated_binding_serves_at_once_beside_others(home: Home) -> None:
    bind(home)
    async with alice(home) as running:
        IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance="new"))
        _, slow = running.network.deliver("alice", "Diary", "none", "never answered as Diary")
        assert await running.ask(Activate("Diary", "new", ("everyone",)), {"word": "x"}) == Ack()
        assert running.network.serving["alice", "Diary", "new"].allow == ("everyone",)
        assert await running.call("Diary", "new", "hello") == ["hello", "x"]
        assert await running.call("Echo", "default", HI) == ECHOED
        assert isinstance(msgspec.msgpack.decode((await slow).header, type=ErrorReply).error(), ProtocolNotFound)

        assert await running.ask(Deactivate("Diary", "new")) == Ack()
        assert ("alice", "Diary", "new") not in running.network.serving
        assert isinstance((await running.call("Diary", "new", "hello")).error(), ProtocolNotFound)
        assert await running.ask(Deactivate("Diary", "new")) == Ack()  # again
        assert diary(home, "new") == ["create x", "activate x", "deactivate x"]
        assert await running.states() == {"Echo/default": "serving"}


async def test_activating_again_reloads(home: Home) -> None:
    async with alice(home) as running:
        IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance="a"))
        await running.ask(Activate("Diary", "a", ("carol",)), {"word": "one"})
        await running.ask(Activate("Diary", "a", ("everyone",)), {"word": "two"})
        assert await running.call("Diary", "a", "?") == ["?", "two"]
        assert running.network.serving["alice", "Diary", "a"].allow == ("everyone",)
        for bad in ({"word": 1}, {"fail_in": "check"}, {"fail_in": "reload"}):
            with pytest.raises((InvalidConfig, HandlerFailed)):
                await running.ask(Activate("Diary", "a"), bad)
            assert await running.call("Diary", "a", "?") == ["?", "two"]
        assert diary(home, "a") == ["create one", "activate one", "reload two"]


@pytest.mark.parametrize(
    ("protocol", "config", "expected"),
    [
        ("Nope", {}, ProtocolNotInstalled),
        ("Diary", {"word": 1}, InvalidConfig),
        ("Diary", {"fail_in": "check"}, InvalidConfig),
        ("Diary", {"fail_in": "create"}, HandlerFailed),
        ("Diary", {"fail_in": "activate"}, HandlerFailed),
        ("Diary", {"exit_in": "activate"}, HandlerFailed),
        ("NoProtocol", {}, HandlerFailed),
    ],
)
async def test_failed_activation_serves_nothing_and_gives_the_reason(
    home: Home, protocol: str, config: dict[str, Any], expected: type[P2PError]
) -> None:
    async with alice(home) as running:
        IdentityStore(home).prepare_binding("alice", BindingFile(protocol=protocol, instance="x"))
        with pytest.raises(expected):
            await running.ask(Activate(protocol, "x"), config)
        assert (await running.states())[f"{protocol}/x"].startswith("failed: ")
        assert running.network.serving == {}
        assert await running.ask(Deactivate(protocol, "x")) == Ack()
        assert await running.states() == {}


async def test_activation_that_the_network_rejects_is_rolled_back(home: Home) -> None:
    async with alice(home) as running:
        running.network.refuse[RegisterBinding] = Forbidden(role="x", request="y")
        IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance="x"))
        with pytest.raises(Forbidden):
            await running.ask(Activate("Diary", "x"))
        assert (await running.states())["Diary/x"].startswith("failed: ")
        assert diary(home, "x") == ["create", "activate", "deactivate"]


async def test_deactivated_binding_lets_requests_end(home: Home) -> None:
    bind(home, "Diary")
    async with alice(home) as running:
        _, answer = running.network.deliver("alice", "Diary", "default", "sleep 0.1")
        asked = asyncio.ensure_future(running.ask(Deactivate("Diary", "default")))
        await running.network.wait_for_message(UnregisterBinding)
        assert msgspec.msgpack.decode((await answer).payload) == ["sleep 0.1", ""]
        assert await asked == Ack()


async def test_cancel_of_the_network_ends_the_handler(home: Home) -> None:
    bind(home, "Diary")
    async with alice(home) as running:
        correlation, answer = running.network.deliver("alice", "Diary", "default", "wait")
        running.network.cancel("alice", correlation)
        assert await running.call("Diary", "default", "next") == ["next", ""]
        assert not answer.done()


async def test_handler_that_exits_fails_its_own_call_only(home: Home) -> None:
    bind(home, "Diary")
    async with alice(home) as running:
        failed = await running.call("Diary", "default", "exit")
        assert isinstance(failed.error(), HandlerFailed)
        assert await running.call("Diary", "default", "next") == ["next", ""]


async def test_stopping_goes_offline_first_and_lets_requests_end(home: Home) -> None:
    bind(home, "Diary")
    async with alice(home) as running:
        network = running.network
        _, answer = network.deliver("alice", "Diary", "default", "sleep 0.1")
        stopped = asyncio.ensure_future(running.supervisor.stop("alice"))
        await network.wait_for_message(UnregisterIdentity)
        assert not answer.done()
        assert msgspec.msgpack.decode((await answer).payload) == ["sleep 0.1", ""]
        async with asyncio.timeout(60):
            await stopped
        assert diary(home) == ["create", "activate", "deactivate"]

    async with alice(home):  # created only once
        pass
    assert diary(home) == ["create", "activate", "deactivate", "activate", "deactivate"]


async def test_without_the_grant_nothing_is_changed(home: Home) -> None:
    bind(home)
    async with alice(home) as running:
        for message in (Activate("Diary", "x"), Deactivate("Echo", "default")):
            answer = await running.link.request(message, timeout=60)
            assert isinstance(msgspec.msgpack.decode(answer.header, type=ErrorReply).error(), Forbidden)
        assert await running.states() == {"Echo/default": "serving"}


async def test_invalid_message_gets_bad_message(home: Home) -> None:
    async with alice(home) as running:
        assert await running.states() == {}
        for header in (b"", b"\x91\xa1\xff", b"\x92\xcd\x01\x2c", b"\x91" * 5000, msgspec.msgpack.encode([17])):
            running.link.send(b"odd", header)
        with pytest.raises(BadMessage):
            await running.ask(GetStatus())
        running.link.send(b"odd", msgspec.msgpack.encode([1]))
        assert await running.states() == {}
        running.network._mailbox.send(running.network.online["alice"], b"odd", b"\x91\xa1\xff")
        running.network.cancel("alice", b"unknown")
        assert await running.states() == {}
