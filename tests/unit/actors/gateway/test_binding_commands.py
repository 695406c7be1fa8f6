"""Commands that add and remove protocols, of online identities and of offline ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

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
from tests.support.failing_protocols import install
from tests.support.stub_actors import GRANT_KEY, KEYS, World, temporary_home, world

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    with temporary_home() as made:
        yield made


async def alice(around: World, *, online: bool = True) -> None:
    await around.ask(m.CreateIdentity("alice"), m.IdentityReply)
    if online:
        await around.ask(m.SetIdentityOnline("alice", True), m.IdentityReply)


async def add(
    around: World, protocol: str = "Echo", instance: str = "default", config: object = None, *allow: str
) -> None:
    payload = config if isinstance(config, bytes) else b"" if config is None else msgspec.json.encode(config)
    await around.ask(m.AddProtocol("alice", protocol, instance, allow), m.Ack, payload)


async def remove(around: World, protocol: str = "Echo", instance: str = "default") -> None:
    await around.ask(m.RemoveProtocol("alice", protocol, instance), m.Ack)


def on_disk(home: Home) -> list[str]:
    return [f"{binding.protocol}/{binding.instance}" for binding in IdentityStore(home).bindings("alice").usable]


def leftovers(home: Home) -> list[str]:
    root = home.identities / "alice" / "protocols"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_added_protocol_answers_at_once_and_neighbours_do_not_notice(home: Home) -> None:
    async with world(home) as around:
        await alice(around)
        await add(around, "Diary", "slow")
        _, slow = around.network.deliver("alice", "Diary", "slow", "sleep 1")
        await add(around, "Echo", "default", {"max_length": 7}, "everyone", KEYS[1].id52, "carol")
        assert await around.network.call("alice", "Echo", "default", HI) == ECHOED
        assert not slow.done()
        assert msgspec.msgpack.decode((await slow).payload) == ["sleep 1", ""]
        assert on_disk(home) == ["Diary/slow", "Echo/default"]
        record = IdentityStore(home).binding("alice", "Echo", "default")
        assert record.allow == ("everyone", KEYS[1].id52, "carol")
        assert msgspec.json.decode(record.config) == {"max_length": 7}
        with pytest.raises(BindingExists):
            await add(around)

        await remove(around)
        assert on_disk(home) == ["Diary/slow"]
        refused = await around.network.call("alice", "Echo", "default", HI)
        assert refused.code == "protocol-not-found"
        with pytest.raises(BindingNotFound):
            await remove(around)
        await add(around)
        assert await around.network.call("alice", "Echo", "default", HI) == ECHOED

        await around.ask(m.SetIdentityOnline("alice", False), m.IdentityReply)
        await around.ask(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await around.network.call("alice", "Echo", "default", HI) == ECHOED
        assert await around.network.call("alice", "Diary", "slow", "still") == ["still", ""]


async def test_protocol_added_offline_serves_once_the_identity_is_online(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=False)
        await add(around, "Diary", "a", {"word": "x"})
        await add(around)
        await remove(around)
        assert on_disk(home) == ["Diary/a"]
        assert "tests.support.failing_protocols:Diary" not in sys.modules
        assert leftovers(home) == ["Diary/a/config.json"]  # no code of it has run here
        await around.ask(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await around.network.call("alice", "Diary", "a", "?") == ["?", "x"]
        await remove(around, "Diary", "a")
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
    async with world(home) as around:
        await alice(around, online=online)
        with pytest.raises(expected, match=words):
            await add(around, protocol, "x", config)
        assert on_disk(home) == leftovers(home) == []
        assert around.network.serving == {}
        await add(around, "Echo", "x")
        assert on_disk(home) == ["Echo/x"]


async def test_code_that_ends_its_process_is_contained(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=False)
        with pytest.raises(HandlerFailed, match="exit code 3"):
            await add(around, "Diary", "x", {"exit_in": "check, really"})
        assert on_disk(home) == leftovers(home) == []


async def test_code_that_fails_to_activate_is_not_added(home: Home) -> None:
    async with world(home) as around:
        await alice(around)
        for config in ({"fail_in": "create"}, {"fail_in": "activate"}, {"exit_in": "activate"}):
            with pytest.raises(HandlerFailed):
                await add(around, "Diary", "x", config)
            assert on_disk(home) == []
            assert around.network.serving == {}


async def test_arguments_are_checked_first(home: Home) -> None:
    async with world(home) as around:
        with pytest.raises(IdentityNotFound):
            await add(around)
        with pytest.raises(IdentityNotFound):
            await remove(around)
        await alice(around, online=False)
        for protocol, instance, allow in (
            ("../Echo", "default", "peers"),
            ("Echo", "..", "peers"),
            ("Echo", "default", "No Name"),
            ("Echo", "default", ""),
        ):
            with pytest.raises(InvalidName):
                await add(around, protocol, instance, None, allow)
        with pytest.raises(InvalidKey):
            await add(around, "Echo", "default", None, "0" * 52)
        with pytest.raises(PeerNameUnknown):
            await add(around, "Echo", "default", None, "everyone", "nobody")
        with pytest.raises(InvalidName):
            await remove(around, "..", "x")
        assert leftovers(home) == []


async def test_disk_that_is_full_leaves_nothing_behind(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed(path="somewhere", reason="the disk is full")

    async with world(home) as around:
        await alice(around)
        for step, owner in (("prepare_binding", IdentityStore), ("commit", PreparedBinding)):
            with monkeypatch.context() as patched:
                patched.setattr(owner, step, fail)
                with pytest.raises(StorageFailed):
                    await add(around)
            assert on_disk(home) == leftovers(home) == []
            assert around.network.serving == {}
        await add(around)
        with monkeypatch.context() as patched:
            patched.setattr(IdentityStore, "remove_binding", fail)
            with pytest.raises(StorageFailed):
                await remove(around)
        assert on_disk(home) == ["Echo/default"]
        assert await around.network.call("alice", "Echo", "default", HI) == ECHOED


async def test_interrupted_adding_is_rolled_back_or_repeated(home: Home) -> None:
    """The gateway is killed after the identity's process serves the binding, and before the binding exists on disk."""
    async with world(home) as around:
        await alice(around)
        for instance in ("forgotten", "repeated"):
            IdentityStore(home).prepare_binding("alice", BindingFile(protocol="Diary", instance=instance))
            await activate_directly(around, instance)
        await around.stop_gateway()
        assert len(around.network.serving) == 2
        await around.start_gateway()
        await add(around, "Diary", "repeated", {"word": "new"})
        await around.network.until(lambda: len(around.network.serving) == 1)
        assert await around.network.call("alice", "Diary", "repeated", "?") == ["?", "new"]
        await around.ask(m.DeleteIdentity("alice"), m.Ack)  # waits until everything about her is settled
        assert IdentityStore(home).uncommitted_bindings() == []


async def activate_directly(around: World, instance: str) -> None:
    link = RequestChannel(around.home.mailbox("identity-alice"), "identity-alice")
    link.open()
    answer = await link.request(Activate("Diary", instance, grant=make_grant(GRANT_KEY, "alice")), timeout=5)
    assert answer.header == m.encode(m.Ack())
    link.close()


async def test_damaged_binding_is_skipped_and_can_be_removed(home: Home) -> None:
    async with world(home) as around:
        await alice(around)
        await add(around)
        await add(around, "Echo", "other")
        (IdentityStore(home).workspace("alice", "Echo", "default") / "config.json").write_bytes(b"{")
        status = (await around.ask(m.GetStatus(), m.StatusReply)).status
        assert any("Echo/default/config.json" in warning for warning in status.warnings)
        await remove(around)
        assert on_disk(home) == ["Echo/other"]
        assert set(around.network.serving) == {("alice", "Echo", "other")}


async def test_same_binding_added_many_times_at_once_is_added_once(home: Home) -> None:
    async with world(home) as around:
        await alice(around)
        results = await asyncio.gather(*(add(around) for _ in range(6)), return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, BindingExists) for result in results) == 5
        assert await around.network.call("alice", "Echo", "default", HI) == ECHOED
