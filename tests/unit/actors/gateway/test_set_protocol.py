"""``SetProtocol`` replaces config and access list of a serving binding, or changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.storage.identity_store import IdentityStore
from fastn_p2p_client.errors import (
    BindingNotFound,
    DaemonBusy,
    HandlerFailed,
    IdentityNotFound,
    InvalidConfig,
    P2PError,
    PeerNameUnknown,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.failing_protocols import install
from tests.support.stub_actors import World, temporary_home, world


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    with temporary_home() as made:
        yield made


async def alice(around: World, *, online: bool) -> None:
    await around.ask(m.CreateIdentity("alice"), m.IdentityReply)
    if online:
        await around.ask(m.SetIdentityOnline("alice", True), m.IdentityReply)
    await around.ask(m.AddProtocol("alice", "Diary", "default", ("peers",)), m.Ack, b'{"word": "old"}')


async def change(around: World, config: object = None, allow: tuple[str, ...] | None = None) -> str:
    payload = config if isinstance(config, bytes) else b"" if config is None else msgspec.json.encode(config)
    return (await around.ask(m.SetProtocol("alice", "Diary", "default", allow), m.StateReply, payload)).state


def on_disk(home: Home) -> tuple[Any, list[str]]:
    record = IdentityStore(home).binding("alice", "Diary", "default")
    return msgspec.json.decode(record.config), list(record.allow)


async def word(around: World) -> str:
    """Return the config of the serving binding."""
    answer = await around.network.call("alice", "Diary", "default", "?")
    return str(answer[1])


async def test_config_and_access_list_change_each_alone_and_together(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=True)
        assert await change(around, {"word": "new"}) == "serving"
        assert await word(around) == "new"
        assert on_disk(home) == ({"word": "new"}, ["peers"])

        assert await change(around, allow=("everyone", "carol")) == "serving"
        assert on_disk(home) == ({"word": "new"}, ["everyone", "carol"])
        assert list(around.network.serving["alice", "Diary", "default"].allow) == ["everyone", "carol"]

        assert await change(around, {"word": "both"}, allow=()) == "serving"
        assert on_disk(home) == ({"word": "both"}, [])
        assert await word(around) == "both"
        assert list(around.network.serving["alice", "Diary", "default"].allow) == ["peers"]
        diary = home.identities / "alice/protocols/Diary/default.diary"
        assert "deactivate" not in diary.read_text()


async def test_change_while_offline_or_stopped_applies_afterwards(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=False)
        assert await change(around, {"word": "offline"}) == "offline"
        await around.ask(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await word(around) == "offline"
        await around.ask(m.StopProtocol("alice", "Diary", "default"), m.StateReply)
        assert await change(around, {"word": "stopped"}) == "stopped"
        assert ("alice", "Diary", "default") not in around.network.serving
        await around.ask(m.StartProtocol("alice", "Diary", "default"), m.StateReply)
        assert await word(around) == "stopped"


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(
    ("config", "allow", "error"),
    [
        (b"{", None, InvalidConfig),
        ({"nonsense": 1}, None, InvalidConfig),
        ({"fail_in": "check"}, ("everyone",), InvalidConfig),
        ({"word": "new"}, ("nobody-i-know",), PeerNameUnknown),
    ],
)
async def test_rejected_change_has_no_effect(
    home: Home, online: bool, config: object, allow: tuple[str, ...] | None, error: type[P2PError]
) -> None:
    async with world(home) as around:
        await alice(around, online=online)
        with pytest.raises(error):
            await change(around, config, allow)
        assert on_disk(home) == ({"word": "old"}, ["peers"])
        if online:
            assert await word(around) == "old"


async def test_a_hook_that_refuses_the_new_config_has_the_old_one_put_back(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=True)
        with pytest.raises(HandlerFailed, match="reload fails as configured"):
            await change(around, {"fail_in": "reload", "word": "new"}, ("everyone",))
        assert on_disk(home) == ({"word": "old"}, ["peers"])
        assert await word(around) == "old"
        assert list(around.network.serving["alice", "Diary", "default"].allow) == ["peers"]


async def test_a_change_that_the_network_rejects_is_undone(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=True)
        around.network.refuse[m.RegisterBinding] = DaemonBusy(actor="network")
        with pytest.raises(P2PError):
            await change(around, {"word": "new"})
        assert on_disk(home) == ({"word": "old"}, ["peers"])


async def test_missing_binding_cannot_be_changed(home: Home) -> None:
    async with world(home) as around:
        await alice(around, online=False)
        with pytest.raises(BindingNotFound):
            await around.ask(m.SetProtocol("alice", "Diary", "other"), m.StateReply, b"{}")
        with pytest.raises(IdentityNotFound):
            await around.ask(m.SetProtocol("bob", "Diary", "default"), m.StateReply, b"{}")
