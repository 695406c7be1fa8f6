"""Permissions on disk belong to bindings, and older bindings get theirs once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_actors.storage.permission_store import PermissionStore
from fastn_p2p_client.errors import InvalidName, StorageDamaged
from fastn_p2p_client.home import Home


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "identities/alice").mkdir(parents=True)
    return tmp_path / "identities/alice/permissions.json"


@pytest.fixture
def store(tmp_path: Path, file: Path) -> PermissionStore:
    return PermissionStore(Home(tmp_path))


def test_they_are_kept_by_binding(store: PermissionStore, file: Path) -> None:
    assert store.granted("alice", "Shop", "default") == ()
    store.grant("alice", "Shop", "default", ("read /a", "read /b"))
    store.grant("alice", "Shop", "other", ("read /b", "listen *:80"))
    assert store.granted("alice", "Shop", "default") == ("read /a", "read /b")
    assert store.read("alice").all_lines() == ("read /a", "read /b", "listen *:80")
    store.grant("alice", "Shop", "default", ())
    assert store.read("alice").granted == {"Shop/other": ("read /b", "listen *:80")}
    assert file.stat().st_mode & 0o077 == 0


def test_bindings_that_are_older_get_theirs_once(store: PermissionStore) -> None:
    store.grant("alice", "Shop", "default", ("read /a",))
    declared = {"Shop/default": ("read /",), "FileTransfer/default": ("read /srv",), "Echo/default": ()}
    expected = {"FileTransfer/default": ("read /srv",), "Shop/default": ("read /a",)}
    assert store.complete("alice", lambda: declared).granted == expected
    assert store.complete("alice", lambda: {"Shop/late": ("read /",)}).granted == expected
    assert store.read("alice").granted == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"granted": {"a": 1}}', b" " * (5 << 20)])
def test_a_damaged_file_grants_nothing_and_is_named(store: PermissionStore, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(StorageDamaged, match=r"permissions\.json"):
        store.read("alice")


def test_names_lead_nowhere_else(store: PermissionStore) -> None:
    with pytest.raises(InvalidName):
        store.read("../alice")
