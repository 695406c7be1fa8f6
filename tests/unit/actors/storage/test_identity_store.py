"""Identities on disk are complete or absent, and a damaged file affects only itself."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.storage.atomic_files import make_directory, remove_tree, write_atomically
from fastn_p2p_actors.storage.identity_store import BindingFile, IdentityFile, IdentityStore
from fastn_p2p_client.errors import (
    BindingExists,
    BindingNotFound,
    IdentityExists,
    IdentityNotFound,
    InvalidName,
    P2PError,
    StorageDamaged,
    StorageFailed,
)
from fastn_p2p_client.home import Home

ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"


def identity(name: str, online: bool = False) -> IdentityFile:
    return IdentityFile(name=name, id52=ID52, created="2026-01-31T12:00:00Z", online=online)


def echo(instance: str = "default", config: bytes = b"{}") -> BindingFile:
    return BindingFile(protocol="Echo", instance=instance, config=msgspec.Raw(config))


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    home = Home(tmp_path)
    home.identities.mkdir(mode=0o700)
    return IdentityStore(home)


def everything_in(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_identity_is_kept_as_json_that_people_can_read(store: IdentityStore, tmp_path: Path) -> None:
    store.create_identity(identity("alice"))
    file = tmp_path / "identities/alice/identity.json"
    assert msgspec.json.decode(file.read_bytes()) == {
        "name": "alice",
        "id52": ID52,
        "created": "2026-01-31T12:00:00Z",
        "online": False,
        "limits": {"memory": None, "processes": None, "file_size": None, "open_files": None},
        "listed": True,
        "revoked": "",
        "successor": "",
        "idle": 0,
        "owner": "",
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert store.identity("alice").key.id52 == ID52
    with pytest.raises(IdentityExists):
        store.create_identity(identity("alice"))
    store.write_identity(identity("alice", online=True))
    assert store.identity("alice").info().online
    assert list(everything_in(tmp_path)) == ["identities/alice/identity.json"]


def test_identities_are_sorted_and_damaged_ones_are_reported(store: IdentityStore, tmp_path: Path) -> None:
    for name in ("bob", "alice", "carol", "dave"):
        store.create_identity(identity(name))
    (tmp_path / "identities/bob/identity.json").write_bytes(b'{"name": "bo')
    (tmp_path / "identities/dave/identity.json").write_bytes(msgspec.json.encode(identity("alice")))
    (tmp_path / "identities/empty").mkdir()
    (tmp_path / "identities/file").touch()
    (tmp_path / "identities/Not A Name").mkdir()
    found = store.identities()
    assert [record.name for record in found.usable] == ["alice", "carol"]
    assert [Path(error.path).parent.name for error in found.damaged] == ["bob", "dave"]
    assert "identities/bob/identity.json" in str(found.damaged[0])
    with pytest.raises(IdentityNotFound):
        store.identity("empty")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"[]",
        b'{"name": "alice"}',
        b'"\xff"',
        b"[" * 100_000,
        b'{"name":"alice","id52":"x","created":""}',
    ],
)
def test_damaged_file_is_a_typed_error_that_names_it(store: IdentityStore, tmp_path: Path, content: bytes) -> None:
    store.create_identity(identity("alice"))
    path = tmp_path / "identities/alice/identity.json"
    path.write_bytes(content)
    with pytest.raises(StorageDamaged) as caught:
        store.identity("alice")
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["", ".", "..", "../alice", "a/b", "Alice", "a" * 65, ".trash-1"])
def test_names_do_not_leave_the_directory(store: IdentityStore, name: str) -> None:
    for step in (
        lambda: store.identity(name),
        lambda: store.remove_identity(name),
        lambda: store.binding(name, "Echo", "default"),
        lambda: store.binding("alice", name if name != "Alice" else "..", "default"),
        lambda: store.binding("alice", "Echo", name),
    ):
        with pytest.raises((InvalidName, BindingNotFound)) as caught:
            step()
        if "/" in name or "." in name:
            assert isinstance(caught.value, InvalidName)


def test_binding_exists_once_it_is_committed(store: IdentityStore, tmp_path: Path) -> None:
    store.create_identity(identity("alice"))
    prepared = store.prepare_binding("alice", echo(config=b'{"max_length": 7}'))
    assert store.bindings("alice").usable == []
    assert store.uncommitted_bindings() == [("alice", "Echo", "default")]
    store.prepare_binding("alice", echo(config=b'{"max_length": 8}'))  # the command is repeated
    prepared.commit()
    assert store.uncommitted_bindings() == []
    found = store.binding("alice", "Echo", "default")
    assert msgspec.json.decode(found.config) == {"max_length": 8}
    assert found.allow == ()
    assert (store.workspace("alice", "Echo", "default") / "config.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BindingExists):
        store.prepare_binding("alice", echo())


def test_bindings_are_sorted_and_damaged_ones_are_reported(store: IdentityStore) -> None:
    store.create_identity(identity("alice"))
    for instance in ("b", "a", "broken", "swapped"):
        store.prepare_binding("alice", echo(instance)).commit()
    (store.workspace("alice", "Echo", "broken") / "config.json").write_bytes(b"{")
    (store.workspace("alice", "Echo", "swapped") / "config.json").write_bytes(msgspec.json.encode(echo("a")))
    found = store.bindings("alice")
    assert [record.instance for record in found.usable] == ["a", "b"]
    assert [Path(error.path).parent.name for error in found.damaged] == ["broken", "swapped"]
    with pytest.raises(BindingNotFound):
        store.binding("alice", "Echo", "none")
    with pytest.raises(BindingExists):  # a damaged one is not overwritten
        store.prepare_binding("alice", echo("broken"))


def test_removing_takes_everything_and_can_be_repeated(store: IdentityStore, tmp_path: Path) -> None:
    store.create_identity(identity("alice"))
    store.prepare_binding("alice", echo()).commit()
    (store.workspace("alice", "Echo", "default") / "data").write_bytes(b"of the protocol")
    for _ in range(2):
        store.remove_binding("alice", "Echo", "default")
    assert list(everything_in(tmp_path)) == ["identities/alice/identity.json"]
    for _ in range(2):
        store.remove_identity("alice")
    assert list((tmp_path / "identities").iterdir()) == []


def test_removal_that_was_cut_short_is_finished(
    store: IdentityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_identity(identity("alice"))
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed right after the renaming
        store.remove_identity("alice")
    assert store.identities() == ([], [])
    assert len(list((tmp_path / "identities").iterdir())) == 1
    store.delete_trash()
    assert list((tmp_path / "identities").iterdir()) == []


def test_full_disk_changes_nothing(store: IdentityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_identity(identity("alice"))
    before = everything_in(tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for broken in ("write", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, full)
            with pytest.raises(StorageFailed) as caught:
                store.write_identity(identity("alice", online=True))
            assert caught.value.path == str(tmp_path / "identities/alice/identity.json")
            assert caught.value.reason == "the disk is full"
        assert everything_in(tmp_path) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_written_to(store: IdentityStore, tmp_path: Path) -> None:
    store.create_identity(identity("alice"))
    directory = tmp_path / "identities/alice"
    directory.chmod(0o500)
    try:
        with pytest.raises(StorageFailed, match="Permission denied"):
            store.write_identity(identity("alice", online=True))
        with pytest.raises(StorageFailed, match="Permission denied"):
            store.prepare_binding("alice", echo())
    finally:
        directory.chmod(0o700)
    assert not store.identity("alice").online


def test_directory_in_the_way_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    steps: list[Callable[[], object]] = [
        lambda: write_atomically(tmp_path / "directory", b""),
        lambda: write_atomically(tmp_path / "none" / "file", b""),
        lambda: make_directory(tmp_path / "file" / "below"),
        lambda: remove_tree(tmp_path / "none", tmp_path),
    ]
    for step in steps:
        with pytest.raises(StorageFailed):
            step()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]


def test_killed_at_any_system_call_the_old_or_the_new_is_there(
    store: IdentityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed during a write makes no further system call."""

    class Killed(BaseException):
        pass

    store.create_identity(identity("alice"))
    old, new = store.identity("alice"), identity("alice", online=True)
    steps = 0
    while True:
        left = steps

        def step(real: Callable[..., Any]) -> Callable[..., Any]:
            def stepping(*arguments: object, **options: object) -> object:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*arguments, **options)

            return stepping

        with monkeypatch.context() as patched:
            for name in ("open", "write", "fsync", "close", "replace"):
                patched.setattr(os, name, step(getattr(os, name)))
            try:
                store.write_identity(new)
                finished = True
            except Killed:
                finished = False
        assert store.identity("alice") in (old, new)
        assert [record.name for record in store.identities().usable] == ["alice"]
        if finished:
            break
        steps += 1
        store.write_identity(old)
    assert steps >= 5
    assert store.identity("alice") == new


def test_typed_errors_only(store: IdentityStore) -> None:
    with pytest.raises(P2PError):
        store.prepare_binding("alice", BindingFile(protocol="../x", instance="default"))
