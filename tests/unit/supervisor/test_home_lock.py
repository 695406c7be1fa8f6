"""The home's directories and lock: created, checked, and held by one daemon."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_client import home as home_module
from fastn_p2p_client.errors import DaemonAlreadyRunning, HomeUnusable
from fastn_p2p_client.home import Home, temporary_directory
from fastn_p2p_supervisor import home_lock
from fastn_p2p_supervisor.home_lock import HomeLock
from tests.support.stub_daemon import short_path


@pytest.fixture
def path() -> Iterator[Path]:
    with short_path() as directory:
        yield directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_made_and_private(path: Path) -> None:
    home = Home(path / "a" / "b")
    lock = HomeLock.acquire(home)
    assert sorted(path.name for path in home.path.iterdir()) == [
        "format",
        "identities",
        "lock",
        "logs",
        "peers",
        "run",
        "vault",
    ]
    assert {mode(path) for path in home.path.iterdir() if path.is_dir()} == {0o700}
    assert mode(home.path) == 0o700
    assert mode(home.lock) == 0o600
    assert home.lock.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert home.lock.read_text() == ""


def test_the_second_daemon_is_rejected_with_the_pid_of_the_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lock = HomeLock.acquire(home)
    with pytest.raises(DaemonAlreadyRunning) as refused:
        HomeLock.acquire(home)
    assert refused.value.pid == os.getpid()
    assert str(refused.value) == (
        f"a daemon is already running for {tmp_path} (pid {os.getpid()}). Stop it first, or use another --home"
    )
    assert home.lock.read_text() == f"{os.getpid()}\n"
    lock.release()
    HomeLock.acquire(home).release()


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o722])
def test_a_home_that_others_may_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(HomeUnusable, match=f"mode {bits:04o}"):
        HomeLock.acquire(Home(tmp_path))
    assert not Home(tmp_path).lock.exists()


def test_a_home_of_another_user_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123456)
    with pytest.raises(HomeUnusable, match="this is uid 123456"):
        HomeLock.acquire(Home(tmp_path))


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(HomeUnusable, match="File exists"):
        HomeLock.acquire(Home(file))


def test_a_full_disk_is_reported_and_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(HomeUnusable, match="No space left on device"):
            HomeLock.acquire(Home(tmp_path))
    HomeLock.acquire(Home(tmp_path)).release()


def test_stale_sockets_go_and_other_files_stay(path: Path) -> None:
    home = Home(path)
    (path / "run").mkdir()
    (path / "run" / "notes.txt").touch()
    for socket_path in (home.control_socket, home.mailbox("network")):
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(socket_path))
    lock = HomeLock.acquire(home)
    assert not home.control_socket.exists()
    assert [entry.name for entry in (path / "run").iterdir()] == ["notes.txt"]
    lock.release()


def test_a_long_home_has_its_sockets_elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path / "runtime"))
    home = Home(path / ("long" * 30))
    lock = HomeLock.acquire(home)
    assert home.sockets.parent == path / "runtime" / "fastn-p2p"
    assert mode(home.sockets) == mode(home.sockets.parent) == mode(home.sockets / "run") == 0o700
    assert home.socket_directory_file.read_text() == f"{home.sockets}\n"
    lock.release()


def test_sockets_do_not_follow_a_link_out_of_a_shared_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    (path / "mine").mkdir()
    (path / "fastn-p2p").symlink_to(path / "mine")
    home = Home(path / ("long" * 30))
    lock = HomeLock.acquire(home)
    assert home.sockets.parent == temporary_directory()
    assert not list((path / "mine").iterdir())
    lock.release()


def test_sockets_get_a_new_directory_if_others_took_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user has created the directory in ``/tmp`` before."""
    squatted = path / "fastn-p2p-0"
    squatted.mkdir()
    squatted.chmod(0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    for module in (home_module, home_lock):
        monkeypatch.setattr(module, "temporary_directory", lambda: squatted)
    home = Home(path / ("long" * 30))
    lock = HomeLock.acquire(home)
    assert home.sockets.parent.name.startswith("fastn-p2p-0-")
    assert mode(home.sockets.parent) == mode(home.sockets) == 0o700
    home.check()
    lock.release()
    assert not list(squatted.iterdir())
    assert [each.name for each in path.iterdir() if each.name.startswith("fastn")] == [squatted.name]


def test_a_home_below_a_directory_that_others_may_write_to_is_refused(path: Path) -> None:
    (path / "open").mkdir()
    (path / "open").chmod(0o777)
    with pytest.raises(HomeUnusable, match=f"may write to {path / 'open'} "):
        HomeLock.acquire(Home(path / "open" / "home"))
    assert not list((path / "open").iterdir()), "nothing was made there"
