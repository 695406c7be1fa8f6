"""Commands for identities: create, bring online, delete; an interruption leaves a consistent state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from fastn_p2p_actors.runtime.control_channel import EnsureOnline, StartIdentity
from fastn_p2p_actors.storage.identity_store import IdentityFile, IdentityStore
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_client.errors import (
    DaemonBusy,
    IdentityExists,
    IdentityFailed,
    IdentityNotFound,
    InvalidName,
    StorageFailed,
    VaultLocked,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import KEYS, RunningGateway, running_gateway, temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


async def listed(gateway: RunningGateway) -> dict[str, bool]:
    reply = await gateway.request(m.ListIdentities(), m.IdentityList)
    return {identity.name: identity.online for identity in reply.identities}


async def create(gateway: RunningGateway, name: str) -> m.IdentityInfo:
    return (await gateway.request(m.CreateIdentity(name), m.IdentityReply)).identity


async def set_online(gateway: RunningGateway, name: str, online: bool = True) -> m.IdentityInfo:
    return (await gateway.request(m.SetIdentityOnline(name, online), m.IdentityReply)).identity


async def delete(gateway: RunningGateway, name: str) -> m.Ack:
    return await gateway.request(m.DeleteIdentity(name), m.Ack)


async def test_identity_from_its_creation_to_its_end(home: Home) -> None:
    async with running_gateway(home) as gateway:
        info = await create(gateway, "alice")
        assert info == m.IdentityInfo(name="alice", id52=KEYS[0].id52, online=False, created="2026-01-31T12:00:00Z")
        await create(gateway, "bob")
        assert (await set_online(gateway, "alice")).online
        assert "alice" in gateway.network.online
        assert await listed(gateway) == {"alice": True, "bob": False}
        await set_online(gateway, "alice")  # again
        assert not (await set_online(gateway, "alice", False)).online
        assert "alice" not in gateway.network.online
        await set_online(gateway, "alice")
        assert await delete(gateway, "alice") == m.Ack()
        assert "alice" not in gateway.network.online
        assert await listed(gateway) == {"bob": False}
        assert set(gateway.vault.keys) == {"bob"}
        assert not (home.identities / "alice").exists()


async def test_names_are_checked_and_unique(home: Home) -> None:
    async with running_gateway(home) as gateway:
        for message in (m.CreateIdentity("Not A Name"), m.SetIdentityOnline("../x", True), m.DeleteIdentity("")):
            with pytest.raises(InvalidName):
                await gateway.request(message, m.Ack)
        await create(gateway, "alice")
        with pytest.raises(IdentityExists):
            await create(gateway, "alice")
        for message in (
            m.SetIdentityOnline("bob", True),
            m.SetIdentityOnline("bob", False),
            m.DeleteIdentity("bob"),
        ):
            with pytest.raises(IdentityNotFound):
                await gateway.request(message, m.Ack)


async def test_creation_that_was_cut_short_is_completed_by_repeating_it(home: Home) -> None:
    async with running_gateway(home) as gateway:
        for name in ("aaron", "alice", "anne"):
            gateway.vault.add(name)  # the key was made, the file was not
        info = await create(gateway, "alice")
        assert info.id52 == KEYS[1].id52
        assert await listed(gateway) == {"alice": False}


async def test_failed_creation_deletes_the_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed(path="somewhere", reason="the disk is full")

    async with running_gateway(home) as gateway:
        monkeypatch.setattr(IdentityStore, "create_identity", fail)
        with pytest.raises(StorageFailed):
            await create(gateway, "alice")
        assert gateway.vault.keys == {}
        gateway.vault.add("alice")
        with pytest.raises(StorageFailed):
            await create(gateway, "alice")
        assert set(gateway.vault.keys) == {"alice"}  # it was not made by this command


async def test_deletion_that_was_cut_short_is_completed_by_repeating_it(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await create(gateway, "alice")
        gateway.vault.keys.clear()  # the key is gone, the directory is not
        assert await delete(gateway, "alice") == m.Ack()
        assert await listed(gateway) == {}
        gateway.vault.add("bob")  # and the other way round
        assert await delete(gateway, "bob") == m.Ack()
        assert gateway.vault.keys == {}


async def test_deletion_that_the_vault_refuses_leaves_the_identity_online(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await create(gateway, "alice")
        await set_online(gateway, "alice")
        gateway.vault.refuse[vault.DeleteKey] = DaemonBusy(actor="vault")
        with pytest.raises(DaemonBusy):
            await delete(gateway, "alice")
        assert await listed(gateway) == {"alice": True}
        assert "alice" in gateway.network.online


async def test_locked_vault_refuses_before_anything_is_stopped_or_started(home: Home) -> None:
    async with running_gateway(home) as gateway:
        for name in ("alice", "bob"):
            await create(gateway, name)
        await set_online(gateway, "alice")
        gateway.vault.locked = True
        for message in (m.DeleteIdentity("alice"), m.SetIdentityOnline("bob", True)):
            with pytest.raises(VaultLocked, match="fastn-p2p vault unlock"):
                await gateway.request(message, m.Ack)
        assert await listed(gateway) == {"alice": True, "bob": False}
        assert gateway.network.online.keys() == {"alice"}
        await set_online(gateway, "alice")  # she is: nothing is to be signed
        await set_online(gateway, "alice", False)
        assert await listed(gateway) == {"alice": False, "bob": False}
        status = (await gateway.request(m.GetStatus(), m.StatusReply)).status
        assert status.vault == m.VaultInfo(encrypted=True, locked=True)


async def test_damaged_identity_is_skipped_and_can_be_deleted(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await create(gateway, "alice")
        await create(gateway, "bob")
        (home.identities / "alice" / "identity.json").write_bytes(b"{")
        assert await listed(gateway) == {"bob": False}
        status = (await gateway.request(m.GetStatus(), m.StatusReply)).status
        assert any("identities/alice/identity.json" in warning for warning in status.warnings)
        assert await delete(gateway, "alice") == m.Ack()
        assert not (home.identities / "alice").exists()


async def test_identity_that_does_not_start_is_offline_again_unless_it_was_online(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await create(gateway, "alice")
        gateway.supervisor.broken.add("alice")
        with pytest.raises(IdentityFailed):
            await set_online(gateway, "alice")
        assert await listed(gateway) == {"alice": False}
        gateway.supervisor.broken.clear()
        await set_online(gateway, "alice")
        await gateway.supervisor.stop("alice")
        gateway.supervisor.broken.add("alice")
        with pytest.raises(IdentityFailed):
            await set_online(gateway, "alice")
        assert await listed(gateway) == {"alice": True}


async def test_vault_that_is_down_is_daemon_busy(home: Home) -> None:
    async def scenario() -> None:
        async with running_gateway(home) as gateway:
            asked = asyncio.ensure_future(create(gateway, "alice"))
            gateway.vault.close()
            with pytest.raises(DaemonBusy) as caught:
                await asked
            assert caught.value.actor == "vault"
            assert await listed(gateway) == {}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fastn_p2p_actors.gateway.actor_clients.ActorClient.request.__kwdefaults__", {"timeout": 0.3})
        await scenario()


async def test_commands_about_one_identity_do_not_interleave(home: Home) -> None:
    async with running_gateway(home) as gateway:
        results = await asyncio.gather(*(create(gateway, "alice") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(result, m.IdentityInfo) for result in results) == 1
        assert sum(isinstance(result, IdentityExists) for result in results) == 4
        await asyncio.gather(*(set_online(gateway, "alice", bool(number % 2)) for number in range(8)))
        wanted = (await listed(gateway))["alice"]
        assert wanted == ("alice" in gateway.network.online) == ("alice" in gateway.supervisor.running)
        deleted = await asyncio.gather(*(delete(gateway, "alice") for _ in range(3)), return_exceptions=True)
        assert sum(isinstance(result, m.Ack) for result in deleted) == 1
        assert sum(isinstance(result, IdentityNotFound) for result in deleted) == 2
        assert await listed(gateway) == {}


async def test_wanted_identities_are_started_with_the_gateway(home: Home) -> None:
    for name, online in (("alice", True), ("bob", False), ("carol", True)):
        IdentityStore(home).create_identity(IdentityFile(name=name, id52=KEYS[0].id52, created="", online=online))
    IdentityStore(home).create_identity(IdentityFile(name="dave", id52=KEYS[0].id52, created="", online=True))
    (home.identities / "dave" / "identity.json").write_bytes(b"")
    async with running_gateway(home) as gateway:
        await gateway.network.until(lambda: {"alice", "carol"} <= set(gateway.network.online))
        assert gateway.supervisor.asked == [EnsureOnline(("alice", "carol"))]
        await set_online(gateway, "bob")
        assert StartIdentity("bob") in gateway.supervisor.asked


async def test_created_at_and_key_are_those_of_the_vault(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await create(gateway, "alice")
    record = IdentityStore(home).identity("alice")
    assert bytes(record.key) == bytes(KEYS[0])
    assert msgspec.structs.asdict(record)["created"] == "2026-01-31T12:00:00Z"
