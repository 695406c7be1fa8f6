"""Removal of a protocol that has files, and the later life of a kept workspace."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.storage.identity_store import IdentityStore
from fastn_p2p_client.errors import BindingNotFound, InvalidConfig, P2PError, StorageFailed, WorkspaceNotEmpty
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import RunningGateway, running_gateway


async def alice(gateway: RunningGateway, *, online: bool) -> None:
    await gateway.request(m.CreateIdentity("alice"), m.IdentityReply)
    if online:
        await gateway.request(m.SetIdentityOnline("alice", True), m.IdentityReply)


async def add(gateway: RunningGateway, protocol: str, config: object = None, *, program: bool = False) -> None:
    payload = b"" if config is None else msgspec.json.encode(config)
    await gateway.request(m.AddProtocol("alice", protocol, "default", (), program), m.Ack, payload)


async def remove(gateway: RunningGateway, protocol: str, *, keep_data: bool = False, if_empty: bool = False) -> None:
    await gateway.request(m.RemoveProtocol("alice", protocol, "default", keep_data, if_empty), m.Ack)


def workspace(home: Home, protocol: str) -> Path:
    return IdentityStore(home).workspace("alice", protocol, "default")


def diary(home: Home) -> list[str]:
    """Return the hooks that the protocol has run."""
    return workspace(home, "Diary").with_name("default.diary").read_text().split()


@pytest.mark.parametrize("online", [True, False])
async def test_a_workspace_with_files_is_not_deleted_unless_that_is_wanted(home: Home, online: bool) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=online)
        await add(gateway, "Diary")
        page = workspace(home, "Diary") / "pages" / "config.json"  # the daemon's own is one directory up
        page.parent.mkdir()
        page.write_text("x" * 1536)
        with pytest.raises(WorkspaceNotEmpty) as caught:
            await remove(gateway, "Diary", if_empty=True)
        assert caught.value.holds == "1 file (1.5 KiB)"
        assert "--yes" in str(caught.value)
        assert "--keep-data" in str(caught.value)
        assert page.exists()
        if online:
            assert await gateway.network.call("alice", "Diary", "default", "?") == ["?", ""]
        await remove(gateway, "Diary")
        assert not workspace(home, "Diary").exists()


@pytest.mark.parametrize("online", [True, False])
async def test_a_workspace_without_files_goes_without_a_question(home: Home, online: bool) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=online)
        await add(gateway, "Diary")
        await remove(gateway, "Diary", if_empty=True)
        assert not workspace(home, "Diary").exists()


async def test_a_damaged_binding_with_files_is_not_removed_unasked(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        await add(gateway, "Diary")
        (workspace(home, "Diary") / "page").write_text("")
        (workspace(home, "Diary") / "config.json").write_text("{")
        with pytest.raises(WorkspaceNotEmpty, match=r"1 file \(0 bytes\)"):
            await remove(gateway, "Diary", if_empty=True)


async def test_a_workspace_that_was_kept_is_found_again(home: Home) -> None:
    """``on_create`` and ``on_delete`` run once each, not for keeping the workspace."""
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        await add(gateway, "Diary")
        page = workspace(home, "Diary") / "page"
        page.write_text("kept")
        await remove(gateway, "Diary", keep_data=True)
        assert IdentityStore(home).bindings("alice").usable == []
        with pytest.raises(BindingNotFound):
            await remove(gateway, "Diary", keep_data=True)
        await add(gateway, "Diary")
        assert page.read_text() == "kept"
        assert not (page.parent / ".kept").exists()
        await remove(gateway, "Diary")
        assert diary(home) == ["create", "activate", "deactivate", "activate", "deactivate", "delete"]


async def test_kept_workspace_is_deleted_by_a_second_removal(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        await add(gateway, "Diary")
        (workspace(home, "Diary") / "page").write_text("kept")
        await remove(gateway, "Diary", keep_data=True)
        with pytest.raises(WorkspaceNotEmpty):
            await remove(gateway, "Diary", if_empty=True)
        await remove(gateway, "Diary")
        assert not workspace(home, "Diary").exists()
        with pytest.raises(BindingNotFound):
            await remove(gateway, "Diary")


@pytest.mark.parametrize(
    ("online", "config", "error"),
    [
        (True, {"fail_in": "activate"}, P2PError),
        (True, {"fail_in": "check"}, InvalidConfig),
        (False, {"fail_in": "check"}, InvalidConfig),
    ],
)
async def test_failed_adding_leaves_the_kept_workspace(
    home: Home, online: bool, config: dict[str, str], error: type[P2PError]
) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=online)
        await add(gateway, "Diary")
        page = workspace(home, "Diary") / "page"
        page.write_text("kept")
        await remove(gateway, "Diary", keep_data=True)
        with pytest.raises(error):
            await add(gateway, "Diary", config)
        assert page.read_text() == "kept"
        assert IdentityStore(home).is_kept("alice", "Diary", "default")
        await add(gateway, "Diary")
        assert page.read_text() == "kept"


async def test_interrupted_adding_leaves_the_kept_workspace(home: Home) -> None:
    """The gateway is killed between writing the binding and committing it."""
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        await add(gateway, "Diary")
        record = IdentityStore(home).binding("alice", "Diary", "default")
        page = workspace(home, "Diary") / "page"
        page.write_text("kept")
        await remove(gateway, "Diary", keep_data=True)
        IdentityStore(home).prepare_binding("alice", record)
    async with running_gateway(home):
        assert IdentityStore(home).uncommitted_bindings() == []
        assert page.read_text() == "kept"


async def test_keeping_that_cannot_be_written_changes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=True)
        await add(gateway, "Diary")
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise StorageFailed(path="there", reason="the disk is full")

            patched.setattr(IdentityStore, "keep_workspace", fail)
            with pytest.raises(StorageFailed):
                await remove(gateway, "Diary", keep_data=True)
        assert await gateway.network.call("alice", "Diary", "default", "?") == ["?", ""]


async def test_a_program_s_workspace_with_files_is_kept(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await alice(gateway, online=False)
        await add(gateway, "Notes", program=True)
        note = workspace(home, "Notes") / "notes"
        note.write_text("one\n")
        with pytest.raises(WorkspaceNotEmpty, match=r"1 file \(4 bytes\)"):
            await remove(gateway, "Notes", if_empty=True)
        await remove(gateway, "Notes", keep_data=True)
        await add(gateway, "Notes", program=True)
        assert note.read_text() == "one\n"
