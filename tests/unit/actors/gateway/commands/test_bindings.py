"""Commands that add and remove protocols, of online identities and of offline ones."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest

from fastn_p2p_actors.identity.messages import Activate
from fastn_p2p_actors.runtime.grants import make_grant
from fastn_p2p_actors.storage.identity_store import BindingFile, IdentityStore, PreparedBinding
from fastn_p2p_client.errors import (
    BindingExists,
    BindingNotFound,
    HandlerFailed,
    IdentityNotFound,
    InvalidConfig,
    InvalidKey,
    InvalidName,
    P2PError,
    PeerNameUnknown,
    ProtocolNotInstalled,
    StorageFailed,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel
from tests.support.stub_actors import GRANT_KEY, KEYS, RunningGateway, running_gateway

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}


async def alice(gateway: RunningGateway, *, online: bool = True) -> None:
    await gateway.request(m.CreateIdentity("alice"), m.IdentityReply)
    if online:
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)


async def add(
    gateway: RunningGateway, protocol: str = "Echo", instance: str = "default", config: object = None, *allow: str
) -> None:
    payload = config if isinstance(config, bytes) else b"" if config is None else msgspec.json.encode(config)
    await gateway.request(m.AddProtocol("alice", protocol, instance, allow), m.Ack, payload)


async def remove(gateway: RunningGateway, protocol: str = "Echo", instance: str = "default") -> None:
    await gateway.request(m.RemoveProtocol("alice", protocol, instance), m.Ack)


def on_disk(home: Home) -> list[str]:
    return [f"{binding.protocol}/{binding.instance}" for binding in IdentityStore(home).bindings("alice").usable]


def leftovers(home: Home) -> list[str]:
    root = home.identities / "alice" / "protocols"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_added_protocol_answers_at_once_and_neighbours_do_not_notice(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway)
        await add(gateway, "Diary", "slow")
        _, slow = gateway.network.deliver("alice", "Diary", "slow", "sleep 1")
        await add(gateway, "Echo", "default", {"max_length": 7}, "everyone", KEYS[1].id52, "carol")
        assert await gateway.network.call("alice", "Echo", "default", HI) == ECHOED
        assert not slow.done()
        assert msgspec.msgpack.decode((await slow).payload) == ["sleep 1", ""]
        assert on_disk(home) == ["Diary/slow", "Echo/default"]
        record = IdentityStore(home).binding("alice", "Echo", "default")
        assert record.allow == ("everyone", KEYS[1].id52, "carol")
        assert msgspec.json.decode(record.config) == {"max_length": 7}
        with pytest.raises(BindingExists):
            await add(gateway)

        await remove(gateway)
        assert on_disk(home) == ["Diary/slow"]
        refused = await gateway.network.call("alice", "Echo", "default", HI)
        assert refused.code == "protocol-not-found"
        with pytest.raises(BindingNotFound):
            await remove(gateway)
        await add(gateway)
        assert await gateway.network.call("alice", "Echo", "default", HI) == ECHOED

        await gateway.request(m.SetIdentityOnline("alice", False), m.IdentityReply)
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await gateway.network.call("alice", "Echo", "default", HI) == ECHOED
        assert await gateway.network.call("alice", "Diary", "slow", "still") == ["still", ""]


async def test_protocol_added_offline_serves_once_the_identity_is_online(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        await add(gateway, "Diary", "a", {"word": "x"})
        await add(gateway)
        await remove(gateway)
        assert on_disk(home) == ["Diary/a"]
        assert "tests.support.failing_protocols:Diary" not in sys.modules
        assert leftovers(home) == ["Diary/a/config.json"]  # no code of it has run here
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await gateway.network.call("alice", "Diary", "a", "?") == ["?", "x"]
        await remove(gateway, "Diary", "a")
        assert leftovers(home) == ["Diary/a.diary"]
        diary = home.identities / "alice/protocols/Diary/a.diary"
        assert diary.read_text().split() == ["create", "x", "activate", "x", "deactivate", "x", "delete", "x"]


@pytest.mark.parametrize(
    ("online", "protocol", "config", "expected", "words"),
    [
        (True, "Nope", None, ProtocolNotInstalled, "Diary, Echo"),
        (False, "Nope", None, ProtocolNotInstalled, "Diary, Echo"),
        (True, "Echo", {"max_length": 0}, InvalidConfig, r"\$\.max_length"),
        (False, "Echo", {"max_length": 0}, InvalidConfig, r"\$\.max_length"),
        (True, "Echo", {"max": 1}, InvalidConfig, "max"),
        (True, "Echo", b"{", InvalidConfig, "truncated"),
        (False, "Echo", b"[" * 100_000, InvalidConfig, "recursion"),
        (True, "Diary", {"fail_in": "check"}, InvalidConfig, "check fails as configured"),
        (False, "Diary", {"fail_in": "check"}, InvalidConfig, "check fails as configured"),
        (True, "NoModule", None, HandlerFailed, "ModuleNotFoundError"),
        (False, "NoModule", None, HandlerFailed, "ModuleNotFoundError"),
        (True, "NoProtocol", None, HandlerFailed, "not a subclass"),
        (True, "TwoHandlers", None, HandlerFailed, "several request handlers"),
        (False, "TwoHandlers", None, HandlerFailed, "several request handlers"),
    ],
)
async def test_failed_adding_leaves_nothing(
    home: Home, online: bool, protocol: str, config: object, expected: type[P2PError], words: str
) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=online)
        with pytest.raises(expected, match=words):
            await add(gateway, protocol, "x", config)
        assert on_disk(home) == leftovers(home) == []
        assert gateway.network.serving == {}
        await add(gateway, "Echo", "x")
        assert on_disk(home) == ["Echo/x"]


async def test_code_that_ends_its_process_is_contained(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        with pytest.raises(HandlerFailed, match="exit code 3"):
            await add(gateway, "Diary", "x", {"exit_in": "check, really"})
        assert on_disk(home) == leftovers(home) == []


async def test_code_that_fails_to_activate_is_not_added(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway)
        for config in ({"fail_in": "create"}, {"fail_in": "activate"}, {"exit_in": "activate"}):
            with pytest.raises(HandlerFailed):
                await add(gateway, "Diary", "x", config)
            assert on_disk(home) == []
            assert gateway.network.serving == {}


async def test_arguments_are_checked_first(home: Home) -> None:
    async with running_gateway(home) as gateway:
        with pytest.raises(IdentityNotFound):
            await add(gateway)
        with pytest.raises(IdentityNotFound):
            await remove(gateway)
        await alice(gateway, online=False)
        for protocol, instance, allow in (
            ("../Echo", "default", "peers"),
            ("Echo", "..", "peers"),
            ("Echo", "default", "No Name"),
            ("Echo", "default", ""),
        ):
            with pytest.raises(InvalidName):
                await add(gateway, protocol, instance, None, allow)
        with pytest.raises(InvalidKey):
            await add(gateway, "Echo", "default", None, "0" * 52)
        with pytest.raises(PeerNameUnknown):
            await add(gateway, "Echo", "default", None, "everyone", "nobody")
        with pytest.raises(InvalidName):
            await remove(gateway, "..", "x")
        assert leftovers(home) == []


async def test_disk_that_is_full_leaves_nothing_behind(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed(path="somewhere", reason="the disk is full")

    async with running_gateway(home) as gateway:
        await alice(gateway)
        for step, owner in (("prepare_binding", IdentityStore), ("commit", PreparedBinding)):
            with monkeypatch.context() as patched:
                patched.setattr(owner, step, fail)
                with pytest.raises(StorageFailed):
                    await add(gateway)
            assert on_disk(home) == leftovers(home) == []
            assert gateway.network.serving == {}
        await add(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(IdentityStore, "remove_binding", fail)
            with pytest.raises(StorageFailed):
                await remove(gateway)
        assert on_disk(home) == ["Echo/default"]
        assert await gateway.network.call("alice", "Echo", "default", HI) == ECHOED


async def test_interrupted_adding_is_rolled_back_or_repeated(home: Home) -> None:
    """The gateway is killed after the identity's process serves the binding, and before the binding exists on disk."""
    async with running_gateway(home) as gateway:
        await alice(gateway)
        for instance in ("forgotten", "repeated"):
            IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance=instance))
            await activate_directly(gateway, instance)
        await gateway.stop_gateway()
        assert len(gateway.network.serving) == 2
        await gateway.start_gateway()
        await add(gateway, "Diary", "repeated", {"word": "new"})
        await gateway.network.until(lambda: len(gateway.network.serving) == 1)
        assert await gateway.network.call("alice", "Diary", "repeated", "?") == ["?", "new"]
        await gateway.request(m.DeleteIdentity("alice"), m.Ack)  # waits until everything about her is settled
        assert IdentityStore(home).uncommitted_bindings() == []


async def activate_directly(gateway: RunningGateway, instance: str) -> None:
    link = RequestChannel(gateway.home.mailbox("identity-alice"), "identity-alice")
    link.open()
    answer = await link.request(Activate("Diary", instance, grant=make_grant(GRANT_KEY, "alice")), timeout=60)
    assert answer.header == m.encode(m.Ack())
    link.close()


async def test_damaged_binding_is_skipped_and_can_be_removed(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway)
        await add(gateway)
        await add(gateway, "Echo", "other")
        (IdentityStore(home).workspace("alice", "Echo", "default") / "config.json").write_bytes(b"{")
        status = (await gateway.request(m.GetStatus(), m.StatusReply)).status
        assert any("Echo/default/config.json" in warning for warning in status.warnings)
        await remove(gateway)
        assert on_disk(home) == ["Echo/other"]
        assert set(gateway.network.serving) == {("alice", "Echo", "other")}


async def test_same_binding_added_many_times_at_once_is_added_once(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway)
        results = await asyncio.gather(*(add(gateway) for _ in range(6)), return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, BindingExists) for result in results) == 5
        assert await gateway.network.call("alice", "Echo", "default", HI) == ECHOED
