"""Status from the replies of all actors, and warnings for those that do not reply."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.gateway.process_usage import Usage, process_usage
from fastn_p2p_actors.network.admin_messages import GetNetworkReport
from fastn_p2p_actors.runtime.control_channel import GetProcesses
from fastn_p2p_actors.storage.identity_store import BindingFile, IdentityStore
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import RunningGateway, running_gateway, temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


async def status(gateway: RunningGateway) -> m.Status:
    return (await gateway.request(m.GetStatus(), m.StatusReply)).status


async def alice_and_bob(gateway: RunningGateway) -> None:
    for name in ("alice", "bob"):
        await gateway.request(m.CreateIdentity(name), m.IdentityReply)
        await gateway.request(m.AddProtocol(name, "Echo", "default"), m.Ack)
    await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)


async def test_status_shows_wanted_and_actual_state(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice_and_bob(gateway)
        found = await status(gateway)
        assert (found.home, found.network_mode, found.endpoint) == (str(home.path), "local", "ab" * 32)
        assert found.uptime_ms > 0
        assert found.clients == 1
        assert [peer.name for peer in found.peers] == ["carol"]
        assert found.warnings == ["of the network"]
        alice, bob = found.identities
        assert (alice.name, alice.online, alice.wanted, alice.delegation_expires_ms) == ("alice", True, True, 1000)
        assert (bob.name, bob.online, bob.wanted, bob.delegation_expires_ms) == ("bob", False, False, None)
        assert [(binding.state, binding.calls) for binding in alice.bindings] == [("serving", 7)]
        assert alice.bindings[0].access == ["everyone"]
        assert [(binding.state, binding.calls) for binding in bob.bindings] == [("offline", 0)]
        assert [process.name for process in found.processes] == ["gateway", "identity-alice"]
        assert found.processes[0].restarts == 2


async def test_failed_binding_gives_the_reason(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice_and_bob(gateway)
        await gateway.request(m.SetIdentityOnline("alice", False), m.IdentityReply)
        record = BindingFile(protocol="Echo", instance="broken", config=msgspec.Raw(b'{"max_length": 0}'))
        IdentityStore(home).prepare_binding("alice", record).commit()
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)
        alice = (await status(gateway)).identities[0]
        states = {binding.instance: binding.state for binding in alice.bindings}
        assert states["default"] == "serving"
        assert states["broken"].startswith("failed: ")
        assert "max_length" in states["broken"]


async def test_actor_that_does_not_reply_becomes_a_warning(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p_actors.gateway.commands.status.STATUS_TIMEOUT", 0.3)
    async with running_gateway(home) as gateway:
        await alice_and_bob(gateway)
        gateway.network.ignore.add(GetNetworkReport)
        gateway.supervisor.silent = True
        asked = asyncio.ensure_future(status(gateway))
        await gateway.network.wait_for_message(GetNetworkReport)
        assert GetProcesses() in gateway.supervisor.asked  # both are asked at the same time
        found = await asked
        assert (found.processes, found.peers, found.endpoint) == ([], [], "")
        assert [identity.name for identity in found.identities] == ["alice", "bob"]
        assert [identity.wanted for identity in found.identities] == [True, False]
        assert len(found.warnings) == 2
        assert "supervisor" in found.warnings[0]
        assert "network process is not answering" in found.warnings[1]


def test_usage_of_this_process_and_of_none() -> None:
    mine = process_usage(os.getpid())
    assert 1_000_000 < mine.memory < 2_000_000_000
    assert mine.cpu_ms > 0
    assert process_usage(2**22 + 1) == Usage(0, 0)


def test_process_that_hides_its_memory_shows_its_resident_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "7"
    directory.mkdir()
    (directory / "stat").write_text("7 (a ) name) S " + " ".join(["0"] * 10) + " 300 200 0 0")
    (directory / "statm").write_text("100 10 5 0 0 0 0")
    real = Path.read_text

    def read_text(path: Path, *arguments: str, **options: str) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    ticks = os.sysconf("SC_CLK_TCK")
    assert process_usage(7, tmp_path) == Usage(10 * os.sysconf("SC_PAGE_SIZE"), 500 * 1000 // ticks)
