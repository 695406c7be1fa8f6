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
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import KEYS, World, temporary_home, world


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


async def listed(around: World) -> dict[str, bool]:
    reply = await around.ask(m.ListIdentities(), m.IdentityList)
    return {identity.name: identity.online for identity in reply.identities}


async def create(around: World, name: str) -> m.IdentityInfo:
    return (await around.ask(m.CreateIdentity(name), m.IdentityReply)).identity


async def set_online(around: World, name: str, online: bool = True) -> m.IdentityInfo:
    return (await around.ask(m.SetIdentityOnline(name, online), m.IdentityReply)).identity


async def delete(around: World, name: str) -> m.Ack:
    return await around.ask(m.DeleteIdentity(name), m.Ack)


async def test_identity_from_its_creation_to_its_end(home: Home) -> None:
    async with world(home) as around:
        info = await create(around, "alice")
        assert info == m.IdentityInfo(name="alice", id52=KEYS[0].id52, online=False, created="2026-01-31T12:00:00Z")
        await create(around, "bob")
        assert (await set_online(around, "alice")).online
        assert "alice" in around.network.online
        assert await listed(around) == {"alice": True, "bob": False}
        await set_online(around, "alice")  # again
        assert not (await set_online(around, "alice", False)).online
        assert "alice" not in around.network.online
        await set_online(around, "alice")
        assert await delete(around, "alice") == m.Ack()
        assert "alice" not in around.network.online
        assert await listed(around) == {"bob": False}
        assert set(around.vault.keys) == {"bob"}
        assert not (home.identities / "alice").exists()


async def test_names_are_checked_and_unique(home: Home) -> None:
    async with world(home) as around:
        for message in (m.CreateIdentity("Not A Name"), m.SetIdentityOnline("../x", True), m.DeleteIdentity("")):
            with pytest.raises(InvalidName):
                await around.ask(message, m.Ack)
        await create(around, "alice")
        with pytest.raises(IdentityExists):
            await create(around, "alice")
        for message in (
            m.SetIdentityOnline("bob", True),
            m.SetIdentityOnline("bob", False),
            m.DeleteIdentity("bob"),
        ):
            with pytest.raises(IdentityNotFound):
                await around.ask(message, m.Ack)


async def test_creation_that_was_cut_short_is_completed_by_repeating_it(home: Home) -> None:
    async with world(home) as around:
        for name in ("aaron", "alice", "anne"):
            around.vault.add(name)  # the key was made, the file was not
        info = await create(around, "alice")
        assert info.id52 == KEYS[1].id52
        assert await listed(around) == {"alice": False}


async def test_failed_creation_deletes_the_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed(path="somewhere", reason="the disk is full")

    async with world(home) as around:
        monkeypatch.setattr(IdentityStore, "create_identity", fail)
        with pytest.raises(StorageFailed):
            await create(around, "alice")
        assert around.vault.keys == {}
        around.vault.add("alice")
        with pytest.raises(StorageFailed):
            await create(around, "alice")
        assert set(around.vault.keys) == {"alice"}  # it was not made by this command


async def test_deletion_that_was_cut_short_is_completed_by_repeating_it(home: Home) -> None:
    async with world(home) as around:
        await create(around, "alice")
        around.vault.keys.clear()  # the key is gone, the directory is not
        assert await delete(around, "alice") == m.Ack()
        assert await listed(around) == {}
        around.vault.add("bob")  # and the other way round
        assert await delete(around, "bob") == m.Ack()
        assert around.vault.keys == {}


async def test_deletion_that_the_vault_refuses_leaves_the_identity_online(home: Home) -> None:
    async with world(home) as around:
        await create(around, "alice")
        await set_online(around, "alice")
        around.vault.refuse[vault.DeleteKey] = DaemonBusy(actor="vault")
        with pytest.raises(DaemonBusy):
            await delete(around, "alice")
        assert await listed(around) == {"alice": True}
        assert "alice" in around.network.online


async def test_damaged_identity_is_skipped_and_can_be_deleted(home: Home) -> None:
    async with world(home) as around:
        await create(around, "alice")
        await create(around, "bob")
        (home.identities / "alice" / "identity.json").write_bytes(b"{")
        assert await listed(around) == {"bob": False}
        status = (await around.ask(m.GetStatus(), m.StatusReply)).status
        assert any("identities/alice/identity.json" in warning for warning in status.warnings)
        assert await delete(around, "alice") == m.Ack()
        assert not (home.identities / "alice").exists()


async def test_identity_that_does_not_start_is_offline_again_unless_it_was_online(home: Home) -> None:
    async with world(home) as around:
        await create(around, "alice")
        around.supervisor.broken.add("alice")
        with pytest.raises(IdentityFailed):
            await set_online(around, "alice")
        assert await listed(around) == {"alice": False}
        around.supervisor.broken.clear()
        await set_online(around, "alice")
        await around.supervisor.stop("alice")
        around.supervisor.broken.add("alice")
        with pytest.raises(IdentityFailed):
            await set_online(around, "alice")
        assert await listed(around) == {"alice": True}


async def test_vault_that_is_down_is_daemon_busy(home: Home) -> None:
    async def scenario() -> None:
        async with world(home) as around:
            asked = asyncio.ensure_future(create(around, "alice"))
            around.vault.close()
            with pytest.raises(DaemonBusy) as caught:
                await asked
            assert caught.value.actor == "vault"
            assert await listed(around) == {}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fastn_p2p_actors.gateway.actor_clients.ActorClient.request.__kwdefaults__", {"timeout": 0.3})
        await scenario()


async def test_commands_about_one_identity_do_not_interleave(home: Home) -> None:
    async with world(home) as around:
        results = await asyncio.gather(*(create(around, "alice") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(result, m.IdentityInfo) for result in results) == 1
        assert sum(isinstance(result, IdentityExists) for result in results) == 4
        await asyncio.gather(*(set_online(around, "alice", bool(number % 2)) for number in range(8)))
        wanted = (await listed(around))["alice"]
        assert wanted == ("alice" in around.network.online) == ("alice" in around.supervisor.running)
        deleted = await asyncio.gather(*(delete(around, "alice") for _ in range(3)), return_exceptions=True)
        assert sum(isinstance(result, m.Ack) for result in deleted) == 1
        assert sum(isinstance(result, IdentityNotFound) for result in deleted) == 2
        assert await listed(around) == {}


async def test_wanted_identities_are_started_with_the_gateway(home: Home) -> None:
    for name, online in (("alice", True), ("bob", False), ("carol", True)):
        IdentityStore(home).create_identity(IdentityFile(name=name, id52=KEYS[0].id52, created="", online=online))
    IdentityStore(home).create_identity(IdentityFile(name="dave", id52=KEYS[0].id52, created="", online=True))
    (home.identities / "dave" / "identity.json").write_bytes(b"")
    async with world(home) as around:
        await around.network.until(lambda: {"alice", "carol"} <= set(around.network.online))
        assert around.supervisor.asked == [EnsureOnline(("alice", "carol"))]
        await set_online(around, "bob")
        assert StartIdentity("bob") in around.supervisor.asked


async def test_created_at_and_key_are_those_of_the_vault(home: Home) -> None:
    async with world(home) as around:
        await create(around, "alice")
    record = IdentityStore(home).identity("alice")
    assert bytes(record.key) == bytes(KEYS[0])
    assert msgspec.structs.asdict(record)["created"] == "2026-01-31T12:00:00Z"
