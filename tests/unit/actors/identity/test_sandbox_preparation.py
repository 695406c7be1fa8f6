"""Preparation of an identity's sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.identity import sandbox_preparation
from fastn_p2p_actors.identity.sandbox_preparation import PreparedSandbox, prepare
from fastn_p2p_actors.runtime.sandbox.landlock import READ, WRITE
from fastn_p2p_actors.storage.identity_store import IdentityFile, IdentityStore
from fastn_p2p_actors.storage.permission_store import PermissionStore
from fastn_p2p_client.errors import StorageDamaged
from fastn_p2p_client.home import Home
from tests.support.stub_actors import KEYS, temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        IdentityStore(made).create_identity(IdentityFile(name="alice", id52=KEYS[0].id52, created="", online=True))
        yield made


def _prepared(home: Home) -> PreparedSandbox:
    prepared = prepare(home, "alice")
    if prepared.ruleset >= 0:
        os.close(prepared.ruleset)
    return msgspec.structs.replace(prepared, ruleset=-1)


def test_a_fork_works_out_what_the_process_would(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PermissionStore(home).grant("alice", "Echo", "default", (f"read {tmp_path}", "connect example.org:443"))
    forked = _prepared(home)
    monkeypatch.setattr(sandbox_preparation, "run_in_fork", lambda _: None)
    assert forked == _prepared(home)
    assert forked.granted == (f"read {tmp_path}", "connect example.org:443")
    assert str(tmp_path) in forked.watched
    own = os.path.realpath(home.identities / "alice")
    assert forked.rights[os.path.realpath(tmp_path)] == forked.rights[own] == READ
    assert forked.rights[f"{own}/protocols"] == WRITE
    assert forked.rights[f"/proc/{os.getpid()}"] == READ
    assert (forked.connect, forked.udp, forked.programs) == (frozenset({443}), True, False)
    assert (home.identities / "alice" / ".tmp").is_dir()


def test_damaged_permissions_are_reported(home: Home) -> None:
    (home.identities / "alice" / "permissions.json").write_text("{")
    with pytest.raises(StorageDamaged):
        prepare(home, "alice")
