"""A home that is given to the users of separate processes, and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastn_p2p_actors.storage.identity_store import IdentityFile, IdentityStore
from fastn_p2p_client.errors import HomeUnusable, StorageFailed
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor import home_owners
from fastn_p2p_supervisor.home_lock import HomeLock
from fastn_p2p_supervisor.user_names import parse_users

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

USERS = parse_users("vault=60600,network=60601,gateway=60602,identities=60610-60613,programs=60603")
OWNER = 60650


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of another user, with two identities, a link and a file of root."""
    monkeypatch.setattr(Home, "socket_directories", lambda self: [self.path])  # whatever the length of the path
    home = Home(tmp_path / "home")
    HomeLock.acquire(home).release()
    for name in ("alice", "bob"):
        IdentityStore(home).create_identity(IdentityFile(name=name, id52="x", created=""))
        workspace = home.identities / name / "protocols/Echo/default"
        workspace.mkdir(parents=True)
        (workspace / "config.json").write_text("{}")
        (workspace / "data").write_text("")
        (workspace / "link").symlink_to(tmp_path / "outside")
    (home.path / "run/network.port").write_text("1")
    (home.path / "run/identity-alice.crashes").write_text("[]")
    (tmp_path / "outside").write_text("")
    for each in (home.path, *home.path.rglob("*")):
        os.chown(each, OWNER, OWNER, follow_symlinks=False)
    (home.peers / "root.json").write_text("")
    return home


def owners(home: Home) -> dict[str, int]:
    """Return the owner of each file of a home."""
    return {str(each.relative_to(home.path)): each.lstat().st_uid for each in (home.path, *home.path.rglob("*"))}


def test_each_file_gets_its_owner_and_nothing_else_is_changed(home: Home) -> None:
    home_owners.separate(home, USERS)
    found = owners(home)
    numbers = {name: (home.identities / name).stat().st_gid for name in ("alice", "bob")}
    assert sorted(numbers.values()) == [60610, 60611]
    alice = "identities/alice"
    assert (found["."], found["run"], found["lock"], found["logs"]) == (0, 0, 0, 0)
    assert (found["vault"], found["peers"], found["run/network"], found["run/network/network.port"]) == (
        60600,
        60601,
        60601,
        60601,
    )
    assert {
        found[each] for each in ("identities", alice, f"{alice}/identity.json", f"{alice}/protocols/Echo/default")
    } == {60602}
    assert found[f"{alice}/protocols/Echo/default/config.json"] == 60602
    assert found[f"{alice}/protocols/Echo/default/data"] == numbers["alice"]
    assert found[f"{alice}/protocols/Echo/default/link"] == numbers["alice"]
    assert found["peers/root.json"] == 0, "it did not belong to the owner of the home"
    assert (home.path.parent / "outside").stat().st_uid == 0, "no link was followed"


def test_it_is_repeated_after_a_crash_at_any_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = 0
    real = home_owners._set_owner

    def crash(*arguments: object) -> None:
        nonlocal changed
        changed += 1
        if changed in (3, 7, 20):
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(home_owners, "_set_owner", crash)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            home_owners.separate(home, USERS)
        assert home_owners.users_of(home) is None
    home_owners.separate(home, USERS)
    assert home_owners.users_of(home) == USERS
    found = owners(home)
    assert OWNER not in found.values()
    numbers = {found[f"identities/{name}/protocols/Echo/default/data"] for name in ("alice", "bob")}
    assert numbers == {60610, 60611}


def test_links_of_the_owner_of_before_lead_root_nowhere(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "secret").write_text("")
    for place in ("run/network", "run/identity-alice"):
        (home.path / place).symlink_to(target)
    for place in ("run/processes.tmp", "logs/vault.log", "config.toml", "peers/link"):
        (home.path / place).symlink_to(tmp_path / "secret")
    (home.logs / "network.log").hardlink_to(tmp_path / "secret")
    (home.identities / "alice/protocols/Echo/default/hard").hardlink_to(tmp_path / "secret")
    home_owners.separate(home, USERS)
    assert ((tmp_path / "secret").stat().st_uid, target.stat().st_uid, list(target.iterdir())) == (0, 0, [])
    links = {str(each.relative_to(home.path)) for each in home.path.rglob("*") if each.is_symlink()}
    assert {link for link in links if not link.startswith("identities/")} == {"peers/link"}
    assert not (home.logs / "network.log").exists()
    home_owners.join(home)
    (home.peers).rename(home.path / "other")
    (home.peers).symlink_to(home.path / "other")
    with pytest.raises(HomeUnusable, match="it is a link"):
        home_owners.separate(home, USERS)


def test_it_is_given_back(home: Home) -> None:
    home_owners.separate(home, USERS)
    home_owners.join(home)
    found = owners(home)
    assert set(found.values()) == {0}
    assert (home.path / "run/network.port").read_text() == "1"
    assert not home.users_file.exists()
    assert {oct(each.stat().st_mode & 0o777) for each in (home.path, home.identities, home.identities / "alice")} == {
        "0o700"
    }


def test_there_are_as_many_identities_as_numbers(home: Home) -> None:
    for number in range(2):
        IdentityStore(home).create_identity(IdentityFile(name=f"more{number}", id52="x", created=""))
    with pytest.raises(StorageFailed, match="all 3 users of identities are taken"):
        home_owners.separate(home, USERS)
