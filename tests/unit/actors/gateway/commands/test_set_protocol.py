"""``SetProtocol`` replaces config and access list of a serving binding, or changes nothing."""

from __future__ import annotations

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
from tests.support.stub_actors import RunningGateway, running_gateway


async def alice(gateway: RunningGateway, *, online: bool) -> None:
    await gateway.request(m.CreateIdentity("alice"), m.IdentityReply)
    if online:
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)
    await gateway.request(m.AddProtocol("alice", "Diary", "default", ("peers",)), m.Ack, b'{"word": "old"}')


async def change(gateway: RunningGateway, config: object = None, allow: tuple[str, ...] | None = None) -> str:
    payload = config if isinstance(config, bytes) else b"" if config is None else msgspec.json.encode(config)
    return (await gateway.request(m.SetProtocol("alice", "Diary", "default", allow), m.StateReply, payload)).state


def on_disk(home: Home) -> tuple[Any, list[str]]:
    record = IdentityStore(home).binding("alice", "Diary", "default")
    return msgspec.json.decode(record.config), list(record.allow)


async def word(gateway: RunningGateway) -> str:
    """Return the config of the serving binding."""
    answer = await gateway.network.call("alice", "Diary", "default", "?")
    return str(answer[1])


async def test_config_and_access_list_change_each_alone_and_together(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        assert await change(gateway, {"word": "new"}) == "serving"
        assert await word(gateway) == "new"
        assert on_disk(home) == ({"word": "new"}, ["peers"])

        assert await change(gateway, allow=("everyone", "carol")) == "serving"
        assert on_disk(home) == ({"word": "new"}, ["everyone", "carol"])
        assert list(gateway.network.serving["alice", "Diary", "default"].allow) == ["everyone", "carol"]

        assert await change(gateway, {"word": "both"}, allow=()) == "serving"
        assert on_disk(home) == ({"word": "both"}, [])
        assert await word(gateway) == "both"
        assert list(gateway.network.serving["alice", "Diary", "default"].allow) == ["peers"]
        diary = home.identities / "alice/protocols/Diary/default.diary"
        assert "deactivate" not in diary.read_text()


async def test_change_while_offline_or_stopped_applies_afterwards(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        assert await change(gateway, {"word": "offline"}) == "offline"
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)
        assert await word(gateway) == "offline"
        await gateway.request(m.StopProtocol("alice", "Diary", "default"), m.StateReply)
        assert await change(gateway, {"word": "stopped"}) == "stopped"
        assert ("alice", "Diary", "default") not in gateway.network.serving
        await gateway.request(m.StartProtocol("alice", "Diary", "default"), m.StateReply)
        assert await word(gateway) == "stopped"


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
    async with running_gateway(home) as gateway:
        await alice(gateway, online=online)
        with pytest.raises(error):
            await change(gateway, config, allow)
        assert on_disk(home) == ({"word": "old"}, ["peers"])
        if online:
            assert await word(gateway) == "old"


async def test_a_hook_that_refuses_the_new_config_has_the_old_one_put_back(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        with pytest.raises(HandlerFailed, match="reload fails as configured"):
            await change(gateway, {"fail_in": "reload", "word": "new"}, ("everyone",))
        assert on_disk(home) == ({"word": "old"}, ["peers"])
        assert await word(gateway) == "old"
        assert list(gateway.network.serving["alice", "Diary", "default"].allow) == ["peers"]


async def test_a_change_that_the_network_rejects_is_undone(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        gateway.network.refuse[m.RegisterBinding] = DaemonBusy(actor="network")
        with pytest.raises(P2PError):
            await change(gateway, {"word": "new"})
        assert on_disk(home) == ({"word": "old"}, ["peers"])


async def test_missing_binding_cannot_be_changed(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        with pytest.raises(BindingNotFound):
            await gateway.request(m.SetProtocol("alice", "Diary", "other"), m.StateReply, b"{}")
        with pytest.raises(IdentityNotFound):
            await gateway.request(m.SetProtocol("bob", "Diary", "default"), m.StateReply, b"{}")
