"""Revoking an identity: an interruption at each step is finished, and nothing brings the identity back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastn_p2p_actors.network.admin_messages import PublishRevocation, ReplacePeer
from fastn_p2p_actors.runtime.control_channel import StopIdentity
from fastn_p2p_actors.storage.identity_store import IdentityStore
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_client.errors import DaemonBusy, IdentityNotFound, IdentityRevoked, InvalidKey, P2PError, StorageFailed
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import KEYS, RunningGateway, running_gateway, temporary_home
from tests.support.two_daemons import until


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


async def online(gateway: RunningGateway, name: str = "alice") -> None:
    await gateway.request(m.CreateIdentity(name), m.IdentityReply)
    await gateway.request(m.SetIdentityOnline(name, True), m.IdentityReply)


async def revoke(gateway: RunningGateway, successor: str = "") -> m.IdentityInfo:
    return (await gateway.request(m.RevokeIdentity("alice", successor), m.IdentityReply)).identity


def published(gateway: RunningGateway) -> list[PublishRevocation]:
    return [each for each in gateway.network.received if isinstance(each, PublishRevocation)]


async def test_vault_commits_then_process_network_and_file_follow(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await online(gateway)
        info = await revoke(gateway, KEYS[2].id52)
        assert (info.online, info.revoked, info.successor) == (False, "2027-01-15T08:00:00Z", KEYS[2].id52)
        assert "alice" not in gateway.supervisor.running
        (told,) = published(gateway)
        assert (told.identity, told.revocation) == ("alice", gateway.vault.revoked["alice"].revocation)
        assert IdentityStore(home).identity("alice").info() == info
        for command in (m.SetIdentityOnline("alice", True), m.GetTicket("alice"), m.AddProtocol("alice", "Echo", "x")):
            with pytest.raises(IdentityRevoked):
                await gateway.request(command, m.Ack)
        await gateway.request(m.DeleteIdentity("alice"), m.Ack)


async def test_repeated_request_is_fine_and_another_successor_is_not(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await online(gateway)
        first = await revoke(gateway, KEYS[2].id52)
        assert await revoke(gateway) == first
        assert await revoke(gateway, KEYS[2].id52) == first
        with pytest.raises(IdentityRevoked, match=KEYS[2].id52):
            await revoke(gateway, KEYS[1].id52)
        assert len(published(gateway)) == 4


async def test_successor_is_named_by_key_or_by_name(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await online(gateway)
        await online(gateway, "alice2")
        with pytest.raises(InvalidKey):
            await revoke(gateway, "nobody")
        assert gateway.vault.revoked == {}
        assert (await revoke(gateway, "alice2")).successor == KEYS[1].id52


async def test_unknown_identity(home: Home) -> None:
    async with running_gateway(home) as gateway:
        with pytest.raises(IdentityNotFound):
            await revoke(gateway)


async def test_vault_that_fails_leaves_everything_as_it_was(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await online(gateway)
        gateway.vault.refuse[vault.RevokeKey] = StorageFailed(path="/x", reason="the disk is full")
        with pytest.raises(StorageFailed):
            await revoke(gateway)
        assert "alice" in gateway.supervisor.running
        assert not IdentityStore(home).identity("alice").revoked


async def test_network_that_fails_is_told_later(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await online(gateway)
        gateway.network.refuse[PublishRevocation] = DaemonBusy(actor="network")
        with pytest.raises(DaemonBusy):
            await revoke(gateway)
        heard = len(published(gateway))
        assert not IdentityStore(home).identity("alice").revoked
        gateway.network.refuse.clear()
        await gateway.network.until(lambda: len(published(gateway)) > heard)
        await until(lambda: IdentityStore(home).identity("alice").revoked, "the file says it")


@pytest.mark.parametrize("is_marked", [False, True])
async def test_revocation_that_was_interrupted_is_finished_at_the_start(home: Home, is_marked: bool) -> None:
    """The gateway was killed after the commit, or after the last step: the network process hears of it again."""
    async with running_gateway(home) as gateway:
        await online(gateway)
        if is_marked:
            await revoke(gateway)
        keys = gateway.vault.keys
    async with running_gateway(home, keys=keys, revoked=("alice",)) as gateway:
        await gateway.network.wait_for_message(PublishRevocation)
        await until(lambda: IdentityStore(home).identity("alice").revoked, "the file says it")
        assert any(isinstance(each, StopIdentity) for each in gateway.supervisor.asked)
        assert "alice" not in gateway.supervisor.running


async def test_successor_of_a_peer_is_accepted_by_the_network_process(home: Home) -> None:
    async with running_gateway(home) as gateway:
        gateway.network.refuse[ReplacePeer] = IdentityRevoked(identity="bob", revoked="", successor="")
        with pytest.raises(P2PError):
            await gateway.request(m.AcceptSuccessor("bob"), m.PeerReply)
        assert any(isinstance(each, ReplacePeer) and each.name == "bob" for each in gateway.network.received)
