"""The home directory's paths, and whether a daemon runs for it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fastn_p2p_client import home as home_module
from fastn_p2p_client.home import Home
from fastn_p2p_client.limits import MAX_NAME, UNIX_PATH_MAX


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was said, else the environment, else the user's own; absolute, and links stay as they are."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("FASTN_HOME", "/srv/fastn")
    monkeypatch.chdir(tmp_path)
    assert Home.find("/elsewhere").path == Path("/elsewhere")
    assert Home.find("~/other").path == Path("/home/somebody/other")
    assert Home.find("here").path == tmp_path / "here"
    assert Home.find().path == Path("/srv/fastn")
    monkeypatch.setenv("FASTN_HOME", "")
    assert Home.find().path == Path("/home/somebody/.fastn")


def test_socket_paths_are_short_enough_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    for length in range(1, 200):
        for path in (Path("/" + "x" * length), Path("/" + "ü" * length)):
            home = Home(path)
            longest = home.mailbox("identity-" + "n" * MAX_NAME)
            assert max(len(os.fsencode(each)) for each in (longest, home.control_socket)) <= UNIX_PATH_MAX
    assert Home(Path("/x")).sockets == Path("/x")
    assert Home(Path("/" + "x" * 90)).sockets != Home(Path("/" + "x" * 91)).sockets


def test_a_runtime_directory_that_is_too_long_itself_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "r" * 100)
    home = Home(Path("/" + "x" * 100))
    longest = home.mailbox("identity-" + "n" * MAX_NAME)
    assert max(len(os.fsencode(each)) for each in (longest, home.control_socket)) <= UNIX_PATH_MAX
    assert home.sockets.parent == Path(f"/tmp/fastn-p2p-{os.getuid()}")


def test_programs_with_another_runtime_directory_find_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has left a note."""
    home = Home(tmp_path / ("long" * 30))
    home.path.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    home.sockets_note.write_text(f"{home.sockets}\n")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert home.sockets.parent == Path("/run/user/1000/fastn-p2p")


def test_a_daemon_runs_while_it_holds_the_lock(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.daemon_pid() is None
    home.lock.write_text("")
    assert home.daemon_pid() is None
    home.lock.write_text(f"{os.getpid()}\n")
    assert home.daemon_pid() is None
    with home.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert home.daemon_pid() == os.getpid()
    assert home.daemon_pid() is None


@pytest.mark.parametrize(
    ("line", "locked"),
    [
        ("1: FLOCK  ADVISORY  WRITE 42 {device}:{inode} 0 EOF", True),
        ("1: FLOCK  ADVISORY  WRITE 7 {device}:{inode} 0 EOF", True),  # in another process namespace
        ("1: FLOCK  ADVISORY  WRITE 42 00:ff:{inode} 0 EOF", True),  # a file system that shows another device
        ("1: FLOCK  ADVISORY  WRITE 7 00:ff:{inode} 0 EOF", False),  # a file of another file system
        ("1: FLOCK  ADVISORY  WRITE 42 {device}:{inode}0 0 EOF", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_a_lock_is_told_from_those_on_other_files(tmp_path: Path, line: str, locked: bool) -> None:
    status = tmp_path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    assert home_module._is_locked(line.format(device=device, inode=status.st_ino), status, 42) is locked
