"""Checks for directories that another user of the machine could change or replace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client import private_paths
from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home
from fastn_p2p_client.private_paths import (
    check_own_directory,
    check_parents,
    directory_closed_to_owner,
    unusable_reason,
)

NOBODY: Final = 65534


@pytest.fixture
def above(tmp_path: Path) -> Path:
    """A directory with a home in it."""
    (tmp_path / "above" / "home").mkdir(mode=0o700, parents=True)
    return tmp_path / "above"


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o703])
def test_a_home_below_a_directory_that_others_may_write_to_is_refused(above: Path, mode: int) -> None:
    home = Home(above / "home")
    home.check()
    above.chmod(mode)
    with pytest.raises(HomeUnusable) as refused:
        home.check()
    assert str(refused.value) == (
        f"{home.path} cannot be used by the daemon: every user of this machine may write to {above} (mode {mode:04o}) "
        f"and could replace it. Forbid that: chmod o-w {above}; or use a --home elsewhere"
    )
    above.chmod(mode | 0o1000)
    home.check()  # sticky, as /tmp is


def test_a_home_that_others_may_write_to_is_refused_also_where_it_is_sticky(above: Path) -> None:
    (above / "home").chmod(0o1777)
    with pytest.raises(HomeUnusable, match="mode 1777"):
        Home(above / "home").check()


def test_a_group_counts_only_if_it_has_other_members(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems with a group for each user often open directories to that group."""
    above.chmod(0o770)
    with monkeypatch.context() as patch:
        patch.setattr(private_paths, "_is_own_group", lambda directory, group: True)
        check_parents(above / "home")
    with monkeypatch.context() as patch:
        patch.setattr(private_paths, "_is_own_group", lambda directory, group: False)
        with pytest.raises(HomeUnusable, match=f"the group {above.stat().st_gid}"):
            check_parents(above / "home")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another group")
def test_a_group_of_others_counts(above: Path) -> None:
    above.chmod(0o770)
    os.chown(above, 0, NOBODY)
    with pytest.raises(HomeUnusable, match=f"the group {NOBODY}"):
        check_parents(above / "home")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_is_refused(above: Path) -> None:
    os.chown(above, NOBODY, NOBODY)
    with pytest.raises(HomeUnusable, match=f"{above} belongs to uid {NOBODY}, who could replace it"):
        check_parents(above / "home")
    with pytest.raises(HomeUnusable, match=f"it belongs to uid {NOBODY}|who could replace"):
        check_own_directory(above)


def test_symbolic_links_are_followed_and_their_directories_checked(above: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("above/../above/home")
    check_own_directory(tmp_path / "link")
    above.chmod(0o777)
    with pytest.raises(HomeUnusable, match=f"may write to {above} "):
        check_own_directory(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_link_of_another_user_is_refused(above: Path) -> None:
    """The owner of a link in a sticky directory may replace it."""
    (above / "link").symlink_to("home")
    os.chown(above / "link", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(HomeUnusable, match="link belongs to uid"):
        check_parents(above / "link")


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(HomeUnusable, match="leads nowhere"):
        check_parents(tmp_path / "circle" / "home")
    (tmp_path / "file").touch()
    with pytest.raises(HomeUnusable, match="Not a directory"):
        check_parents(tmp_path / "file" / "home")
    check_parents(tmp_path / "nothing" / "here" / "yet")


def test_a_user_namespace_does_not_have_the_machines_root(monkeypatch: pytest.MonkeyPatch, above: Path) -> None:
    """In an ordinary user's container ``/`` belongs to an unmapped uid, which must not reject every home."""
    real = Path.read_text
    shown = {"/proc/sys/kernel/overflowuid": f"{NOBODY}\n", "/proc/self/uid_map": "0 1000 1\n"}
    monkeypatch.setattr(Path, "read_text", lambda self, *args: shown.get(str(self)) or real(self, *args))
    assert private_paths._is_unmapped(NOBODY)
    assert not private_paths._is_unmapped(1000)
    shown["/proc/self/uid_map"] = "0 0 4294967295\n"
    assert not private_paths._is_unmapped(NOBODY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
@pytest.mark.parametrize("mode", [0o000, 0o600, 0o500])
def test_a_directory_that_keeps_its_owner_out_is_found(tmp_path: Path, mode: int) -> None:
    (home := tmp_path / "home").mkdir()
    assert directory_closed_to_owner(home / "logs" / "a.log") is None
    home.chmod(mode)
    try:
        assert directory_closed_to_owner(home / "logs" / "a.log") == home
    finally:
        home.chmod(0o700)


def test_the_reason_names_the_command_that_opens_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(private_paths, "directory_closed_to_owner", lambda _: tmp_path)
    assert unusable_reason(PermissionError(13, "Permission denied"), tmp_path / "a").endswith(f"chmod u+rwx {tmp_path}")
    assert unusable_reason(OSError(28, "No space left on device"), tmp_path / "a") == "No space left on device"
