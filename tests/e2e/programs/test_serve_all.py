"""Programs that serve every identity that wants it: bindings come and go, and their hooks are called in order."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_client import Client, serve_all, sync
from fastn_p2p_client.errors import (
    ApplicationError,
    BadRequest,
    BindingExists,
    CommandNotFound,
    Denied,
    Overloaded,
    P2PError,
    PeerOffline,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import AddProtocol, DeleteIdentity, RemoveProtocol, SetIdentityOnline
from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request
from fastn_p2p_client.serving.server import Server
from tests.support.daemons import Daemon, eventually
from tests.support.serving_programs import serving
from tests.support.two_daemons import TwoDaemons, binding_of, until, until_awaited

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport"), pytest.mark.asyncio_loop]


class Add(msgspec.Struct):
    name: str
    port: int


class Settings(Protocol):
    """Writes down what happens to it."""

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        limit: int = 3

    config: Config
    diary: list[str]

    def note(self, what: str) -> None:
        self.diary.append(f"{self.context.identity}/{self.context.instance} {what}")

    async def on_check(self) -> None:
        if self.config.limit < 0:
            raise ValueError("the limit is below 0")

    async def on_create(self) -> None:
        self.note("created")

    async def on_activate(self) -> None:
        self.note(f"active with {self.config.limit}")
        (self.context.workspace / "notes").write_text("kept")

    async def on_deactivate(self) -> None:
        self.note("inactive")

    async def on_delete(self) -> None:
        self.note(f"deleted with {(self.context.workspace / 'notes').read_text()}")

    @request
    async def limit(self, _: None, peer: Peer) -> int:
        return self.config.limit

    @request("settings.add-forwarding")
    def add(self, order: Add, peer: Peer) -> str:
        return f"{order.name}:{order.port} for {peer.path} {peer.key.id52}"


@pytest.fixture
def diary() -> list[str]:
    Settings.diary = []
    return Settings.diary


async def declare(
    client: Client, identity: str, protocol: str = "Settings", instance: str = "default", *, config: Any = None
) -> None:
    payload = json.dumps(config or {}).encode()
    await client.control(AddProtocol(identity, protocol, instance, ("everyone",), True), payload)


@asynccontextmanager
async def settings(daemons: TwoDaemons) -> AsyncIterator[tuple[Client, Client]]:
    """A program serves Settings at daemon two; a client of each daemon."""
    server = serve_all(daemons.two.home)
    server.protocol(Settings)
    async with serving(server), Client(daemons.one.home) as one, Client(daemons.two.home) as two:
        yield one, two


async def until_reply(client: Client, peer: str, protocol: str = "Settings", instance: str = "default") -> Any:
    async def reply() -> list[Any] | None:
        try:
            return [await client.call("alice", peer, protocol, instance)]
        except (PeerOffline, ProtocolNotFound, P2PError):
            return None

    return (await until_awaited(reply, f"{protocol} ({instance}) answers"))[0]  # type: ignore[index]


async def test_a_binding_has_its_whole_life_in_a_program(daemons: TwoDaemons, diary: list[str]) -> None:
    async with settings(daemons) as (one, two):
        await declare(two, "bob", config={"limit": 5})
        assert await until_reply(one, daemons.bob) == 5
        status = binding_of(daemons.two, "bob", "Settings")
        assert (status.state, status.programs, status.access) == ("serving", 1, ["everyone"])
        await two.control(SetIdentityOnline("bob", False))
        await until(lambda: diary[-1] == "bob/default inactive", "it is told that bob is offline")
        assert binding_of(daemons.two, "bob", "Settings").state == "offline"
        await two.control(SetIdentityOnline("bob", True))
        assert await until_reply(one, daemons.bob) == 5
        await two.control(RemoveProtocol("bob", "Settings", "default"))
        with pytest.raises(ProtocolNotFound):
            await one.call("alice", daemons.bob, "Settings")
    active = ["bob/default active with 5", "bob/default inactive"]
    assert diary == ["bob/default created", *active, *active, "bob/default deleted with kept"]
    assert not (daemons.two.home.identities / "bob/protocols/Settings/default").exists()


async def test_a_program_that_starts_later_finds_what_there_is(daemons: TwoDaemons, diary: list[str]) -> None:
    async with Client(daemons.two.home) as two:
        await declare(two, "bob")
        assert binding_of(daemons.two, "bob", "Settings").state == "waiting for a program"
        for _ in range(2):  # it is created once
            async with settings(daemons) as (one, _two):
                assert await one.call("alice", daemons.bob, "Settings") == 3
        await two.control(RemoveProtocol("bob", "Settings", "default"))
    assert diary == ["bob/default created", *["bob/default active with 3", "bob/default inactive"] * 2]


async def test_commands_reach_their_handlers_and_no_others(daemons: TwoDaemons, diary: list[str]) -> None:
    async with settings(daemons) as (one, two):
        await declare(two, "bob")
        await until_reply(one, daemons.bob)
        order, command = Add("web", 80), "settings.add-forwarding"
        said = await one.call("alice", daemons.bob, "Settings", request=order, command=command)
        assert said == f"web:80 for direct {daemons.alice}"
        said = await two.call("bob", daemons.bob, "Settings", request=order, command=command)
        assert said == f"web:80 for local {daemons.bob}"
        with pytest.raises(CommandNotFound, match=r"no command .settings\.nothing."):
            await one.call("alice", daemons.bob, "Settings", command="settings.nothing")
        with pytest.raises(BadRequest, match=r"\$\.port"):
            await one.call("alice", daemons.bob, "Settings", request={"name": "x", "port": "y"}, command=command)
        await two.control(RemoveProtocol("bob", "Settings", "default"))


async def test_a_binding_that_cannot_be_served_costs_no_other(daemons: TwoDaemons, diary: list[str]) -> None:
    async with settings(daemons) as (one, two):
        await declare(two, "bob", instance="bad", config={"limit": -1})
        await declare(two, "bob", instance="odd", config={"limt": 1})
        await declare(two, "bob", instance="good", config={"limit": 7})
        assert await until_reply(one, daemons.bob, instance="good") == 7

        def state(instance: str) -> str:
            return binding_of(daemons.two, "bob", "Settings", instance).state

        await until(lambda: "the limit is below 0" in state("bad"), "status says what is wrong")
        await until(lambda: "`limt`" in state("odd"), "and of the other one")
        for instance in ("bad", "odd", "good"):
            await two.control(RemoveProtocol("bob", "Settings", instance))
    assert [line for line in diary if not line.startswith("bob/good")] == []


async def test_plain_handlers_are_told_for_whom_they_answer(daemons: TwoDaemons) -> None:
    server = serve_all(daemons.two.home)

    @server.handle_requests("Clock", concurrency=1, queue=0)
    async def clock(request: None, context: BindingContext) -> list[Any]:
        return [context.identity, context.instance, context.config, context.workspace.is_dir()]

    async with Client(daemons.two.home) as two, Client(daemons.one.home) as one, serving(server):
        await declare(two, "bob", "Clock", "one", config={"zone": "UTC"})
        await declare(two, "bob", "Clock", "two")
        assert await until_reply(one, daemons.bob, "Clock", "one") == ["bob", "one", {"zone": "UTC"}, True]
        assert await until_reply(one, daemons.bob, "Clock", "two") == ["bob", "two", {}, True]
        for instance in ("one", "two"):
            await two.control(RemoveProtocol("bob", "Clock", instance))


async def test_the_owner_s_access_list_overrides_the_program_s(daemons: TwoDaemons) -> None:
    async def handle(request: None) -> str:
        return "in"

    server = Server("bob", daemons.two.home)
    server.handle_requests("Shop", handle, access="everyone")
    async with Client(daemons.two.home) as two, Client(daemons.one.home) as one:
        await two.control(AddProtocol("bob", "Shop", "default", (daemons.bob,), True))
        async with serving(server):
            assert await two.call("bob", daemons.bob, "Shop") == "in"
            with pytest.raises(Denied):
                await one.call("alice", daemons.bob, "Shop")
        with pytest.raises(BindingExists):
            await declare(two, "bob", "Shop")
        await two.control(RemoveProtocol("bob", "Shop", "default"))


async def test_bindings_are_followed_over_the_death_of_any_process(daemon: Daemon, diary: list[str]) -> None:
    id52 = daemon.identity("carol", echo=False)
    server = serve_all(daemon.home)
    server.protocol(Settings)

    async def until_it_is(limit: int, instance: str) -> None:
        async def is_it() -> bool:
            try:
                return bool(await client.call("carol", id52, "Settings", instance, timeout=20) == limit)
            except P2PError:
                return False

        await until_awaited(is_it, f"the one with {limit} answers")

    async with Client(daemon.home) as client:
        await declare(client, "carol", config={"limit": 1})
        async with serving(server):
            await until_it_is(1, "default")
            for number, actor in enumerate(("gateway", "network"), 2):
                pid = daemon.kill_actor(actor)
                await asyncio.to_thread(daemon.wait_actor, actor, pid)
                await declare(client, "carol", instance=f"after-{actor}", config={"limit": number})
                await until_it_is(number, f"after-{actor}")
                await until_it_is(1, "default")
            await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(daemon.start)
            await until_it_is(1, "default")
            await client.control(DeleteIdentity("carol"))
            await until(lambda: len([line for line in diary if "inactive" in line]) == 3, "all three are ended")
    assert not [line for line in diary if "deleted" in line]  # as in the daemon, when an identity goes


def test_the_blocking_twin_serves_until_another_thread_says_enough(daemons: TwoDaemons) -> None:
    server = sync.listen("bob", daemons.two.home)
    begun, go_on = threading.Event(), threading.Event()

    @server.handle_requests("Shop", access="everyone", concurrency=1, queue=1)
    def handle(request: int, peer: Peer) -> str:
        begun.set()
        go_on.wait(60)
        return f"{request} for {peer.key.id52}"

    @server.handle_streams("Shop")
    def send(session: sync.Session, size: int) -> None:
        if size < 0:
            raise ApplicationError("Negative", "not so", size)
        session.write(b"x" * size)

    serves = threading.Thread(target=server.serve)
    serves.start()
    assert server.ready.wait(60)
    replies: list[Any] = []
    with sync.Client(daemons.one.home) as client:
        with client.connect("alice", daemons.bob, "Shop", initial=1_000_000) as session:
            assert sum(map(len, session)) == 1_000_000
        with pytest.raises(ApplicationError, match="Negative"):
            client.connect("alice", daemons.bob, "Shop", initial=-1)

        def call(number: int) -> None:
            replies.append(client.call("alice", daemons.bob, "Shop", request=number))

        calls = [threading.Thread(target=call, args=(number,)) for number in range(2)]
        for thread in calls:
            thread.start()
        eventually(lambda: binding_of(daemons.two, "bob", "Shop").in_flight == 2, "both are there")
        with pytest.raises(Overloaded, match=r"calls in flight at Shop \(limit 2\)"):
            client.call("alice", daemons.bob, "Shop", request=3)
        assert begun.wait(60)
        server.close()
        go_on.set()
        for thread in calls:
            thread.join(60)
    serves.join(60)
    assert not serves.is_alive()
    assert sorted(replies) == [f"{number} for {daemons.alice}" for number in range(2)]
    server.close()
    server.serve()  # it was told so before, and has nothing to wait for


PROGRAM = """
import pathlib, signal, sys, time
from fastn_p2p_client.sync import listen

server = listen("bob")

@server.handle_requests("Slow", access="everyone")
def slow(path: str) -> str:
    pathlib.Path(path + " begun").touch()
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
    return "finished"

signal.signal(signal.SIGTERM, lambda number, frame: server.close())
server.serve()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 0)])
def test_a_signal_has_what_is_in_flight_finished(
    daemons: TwoDaemons, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C, and a signal of which the handler closes the server."""

    def serving_now() -> list[int]:
        bindings = [each for identity in daemons.two.status().identities for each in identity.bindings]
        return [each.in_flight for each in bindings if each.protocol == "Slow"]

    program = subprocess.Popen([sys.executable, "-c", PROGRAM], env=daemons.two.env, stderr=subprocess.PIPE)
    replies: list[Any] = []

    def call() -> None:
        with daemons.one.client() as client:
            replies.append(client.call("alice", daemons.bob, "Slow", request=str(tmp_path / "go on")))

    caller = threading.Thread(target=call)
    try:
        eventually(lambda: serving_now() == [0], "it serves")
        caller.start()
        eventually((tmp_path / "go on begun").exists, "it is at work")
        program.send_signal(number)
        eventually(lambda: serving_now() == [], "it takes no more")
        (tmp_path / "go on").touch()
        caller.join(60)
        program.communicate(timeout=60)
    finally:
        program.kill()
        program.communicate()
    assert replies == ["finished"]
    assert program.returncode == code
