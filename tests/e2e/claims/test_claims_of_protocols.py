"""Retried calls to a protocol that daemons host and that claims them in one store: none is executed twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import InvalidConfig, OutcomeUnknown, StorageUnavailable
from fastn_p2p_client.ipc.messages import BindingStatus
from tests.support.booking_protocol import NOTE
from tests.support.claim_servers import ClaimServer
from tests.support.daemons import Daemon
from tests.support.joined_replicas import JoinedReplicas, new_joined_replicas
from tests.support.processes import signal_if_alive
from tests.support.replicas import kill_all, unreachable
from tests.support.two_daemons import until, until_awaited

# Use one kind of store: test_claim_stores and test_call_claims compare both.
pytestmark = [
    pytest.mark.asyncio_loop,
    pytest.mark.parametrize("claim_server", ["nats"], indirect=True, scope="package"),
]

PROTOCOL = "Booking"


@pytest.fixture(scope="module")
def joined(claim_server: ClaimServer) -> Iterator[JoinedReplicas]:
    """Both daemons of alice have the protocol, with claims. It is not the daemon's own, and has a sandbox."""
    with new_joined_replicas(Booking="tests.support.booking_protocol:Booking") as made:
        for daemon in (made.owner, made.replica):
            with daemon.client() as client:
                client.protocols.add("alice", PROTOCOL, claims=claim_server.url)
        yield made


def workspace(daemon: Daemon) -> Path:
    return daemon.home.identities / "alice" / "protocols" / PROTOCOL / "default"


def note_of(joined: JoinedReplicas) -> list[str]:
    """The lines of both daemons."""
    files = [workspace(each) / NOTE for each in (joined.owner, joined.replica)]
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


def binding_at(daemon: Daemon) -> BindingStatus | None:
    bindings = [each for identity in daemon.status().identities for each in identity.bindings]
    return next((each for each in bindings if each.protocol == PROTOCOL), None)


async def serves_with(daemon: Daemon, claims: str) -> bool:
    binding = await asyncio.to_thread(binding_at, daemon)
    return binding is not None and (binding.state, binding.claims) == ("serving", claims)


async def has_call(daemon: Daemon) -> bool:
    binding = await asyncio.to_thread(binding_at, daemon)
    return binding is not None and binding.in_flight > 0


def call(
    client: Client, joined: JoinedReplicas, number: int, until: str = "", seconds: float = 60
) -> asyncio.Task[Any]:
    request = {"number": number, "until": until}
    return asyncio.create_task(client.call("bob", joined.alice, PROTOCOL, request=request, timeout=seconds, retry=True))


async def executed_at(joined: JoinedReplicas, number: int) -> tuple[Daemon, Daemon]:
    """The daemon that executes the call, and the other one."""
    await until(lambda: f"begun {number}" in note_of(joined), "it is executed")
    file = workspace(joined.owner) / NOTE
    is_owner = file.exists() and f"begun {number}" in file.read_text().splitlines()
    return (joined.owner, joined.replica) if is_owner else (joined.replica, joined.owner)


async def test_another_daemon_gives_the_answer_and_the_store_outlives_a_restart(
    joined: JoinedReplicas, claim_server: ClaimServer
) -> None:
    """``status`` names the store."""
    for daemon in (joined.owner, joined.replica):
        await asyncio.to_thread(daemon.stop)
        await asyncio.to_thread(daemon.start)
        await until_awaited(partial(serves_with, daemon, claim_server.url), "it serves, with the store")
    async with Client(joined.caller.home) as client:
        asked = call(client, joined, 1, "go-on")
        first, second = await executed_at(joined, 1)
        pid = first.pid("identity-alice")
        with unreachable(first):
            await until_awaited(lambda: has_call(second), "the other one has it, and waits")
            (workspace(first) / "go-on").touch()
            assert await asked == pid
    assert note_of(joined) == ["begun 1", "ended 1"]


async def test_without_the_store_nothing_is_executed(joined: JoinedReplicas, claim_server: ClaimServer) -> None:
    async with Client(joined.caller.home) as client:
        claim_server.stop()
        try:
            with pytest.raises(StorageUnavailable):
                await call(client, joined, 2, seconds=5)
        finally:
            claim_server.start()
        assert await call(client, joined, 3)
    assert "begun 2" not in note_of(joined)
    assert note_of(joined).count("begun 3") == 1


async def test_a_daemon_that_is_killed_in_the_middle_leaves_the_outcome_unknown(joined: JoinedReplicas) -> None:
    async with Client(joined.caller.home) as client:
        asked = call(client, joined, 4, "never")
        first, _ = await executed_at(joined, 4)
        await asyncio.to_thread(kill_all, first)
        try:
            with pytest.raises(OutcomeUnknown):
                await asked
        finally:
            await asyncio.to_thread(first.start)
    assert note_of(joined).count("begun 4") == 1


async def test_the_process_of_the_identity_that_is_killed_does_not_execute_its_call_again(
    joined: JoinedReplicas,
) -> None:
    """Without claims, the next process of the same daemon does."""
    async with Client(joined.caller.home) as client:
        asked = call(client, joined, 5, "never")
        first, _ = await executed_at(joined, 5)
        signal_if_alive(first.pid("identity-alice"), signal.SIGKILL)
        with pytest.raises(OutcomeUnknown):
            await asked
    assert note_of(joined).count("begun 5") == 1


async def test_the_store_can_be_changed_and_removed_while_it_serves(
    joined: JoinedReplicas, claim_server: ClaimServer
) -> None:
    """The process may reach the store, and no longer when it is not the store any more."""
    with joined.owner.client() as client:
        with pytest.raises(InvalidConfig, match=r"claims: .*no URL"):
            client.protocols.set("alice", PROTOCOL, claims="work")
        with pytest.raises(InvalidConfig, match="handle_requests"):
            client.protocols.add("alice", "Other", program=True, claims=claim_server.url)
        with pytest.raises(InvalidConfig, match="--workers-claims"):
            client.protocols.add(
                "alice", "Other", config={"url": "nats://127.0.0.1:1"}, workers=True, claims=claim_server.url
            )
        assert permissions_at(joined.owner), "the owner has given the URL, and with it the permission"
        client.protocols.set("alice", PROTOCOL, claims="")
        assert not permissions_at(joined.owner)
        assert (binding := binding_at(joined.owner)) is not None
        assert binding.claims == ""
        client.protocols.set("alice", PROTOCOL, claims=claim_server.url, reset_added=True)
        assert permissions_at(joined.owner)
    async with Client(joined.caller.home) as caller:
        assert await call(caller, joined, 6)
    assert note_of(joined).count("begun 6") == 1


def test_the_commands_check_the_url_before_anything_is_changed(
    joined: JoinedReplicas, claim_server: ClaimServer
) -> None:
    changed = joined.owner.cli("set-protocol", "alice", "--protocol", PROTOCOL, "--claims", claim_server.url)
    assert changed.returncode == 0, changed.stderr
    assert "connect 127.0.0.1:" in changed.stderr
    add = ("add-protocol", "alice", "--protocol", PROTOCOL, "--instance", "another")
    for options, words in (
        (("--claims", "work"), "no URL of a store"),
        (("--claims", claim_server.url, "--program"), "handle_requests"),
        (("--claims", claim_server.url, "--workers", "nats://127.0.0.1:1"), "--workers-claims"),
        (("--claims", "nats://127.0.0.1/work?credentials=/missing"), "cannot be used"),
    ):
        refused = joined.owner.cli(*add, *options)
        assert refused.returncode != 0
        assert words in refused.stderr
    with joined.owner.client() as client:
        assert {each.instance for each in client.protocols.access("alice") if each.protocol == PROTOCOL} == {"default"}


def permissions_at(daemon: Daemon) -> list[str]:
    with daemon.client() as client:
        return [
            line for each in client.protocols.access("alice") if each.protocol == PROTOCOL for line in each.permissions
        ]
