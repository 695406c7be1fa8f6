"""Paths in the home directory, and the check whether a daemon runs for it."""

from __future__ import annotations

import fcntl
import os
import pwd
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home, lock_exclusively, runtime_directories, temporary_directory
from fastn_p2p_client.limits import MAX_NAME, UNIX_PATH_MAX

NOBODY: Final = 65534


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The explicit path, else the environment, else the default; absolute, without resolving symbolic links."""
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
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    home.socket_directory_file.write_text(f"{runtime}/fastn-p2p/one\n")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert home.sockets == runtime / "fastn-p2p" / "one"


def test_an_unusable_runtime_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    assert runtime_directories() == [own / "fastn-p2p", temporary_directory()]

    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "below").mkdir(mode=0o700)
    (tmp_path / "file").touch()
    (tmp_path / "squatted").mkdir(mode=0o700)
    (tmp_path / "squatted" / "fastn-p2p").symlink_to(own)
    unusable = ["", "own", "open", "open/below", "file", "missing", "squatted", "bytes-\udcff"]
    for each in unusable:
        monkeypatch.setenv("XDG_RUNTIME_DIR", each if each in ("", "own") else str(tmp_path / each))
        assert runtime_directories() == [temporary_directory()], each


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any directory")
def test_a_runtime_directory_that_cannot_be_written_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "closed"))
    assert runtime_directories() == [temporary_directory()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_runtime_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "theirs"))
    assert runtime_directories() == [temporary_directory()]


def test_a_home_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME the account's home counts. Without an account the error names what to set."""
    monkeypatch.delenv("FASTN_HOME", raising=False)
    account = pwd.getpwuid(os.getuid()).pw_dir
    for value in (None, ""):
        monkeypatch.setenv("HOME", "") if value == "" else monkeypatch.delenv("HOME", raising=False)
        assert Home.find().path == Path(account) / ".fastn"
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    for explicit in (None, "~/elsewhere"):
        with pytest.raises(HomeUnusable, match=r"HOME is not set and uid 4000000 has no account\. Set FASTN_HOME"):
            Home.find(explicit)
    with pytest.raises(HomeUnusable, match="there is no such user"):
        Home.find("~no-such-user/x")
    assert Home.find("/srv/fastn").path == Path("/srv/fastn")


def test_rejects_a_home_whose_path_is_not_utf8() -> None:
    with pytest.raises(HomeUnusable, match="not UTF-8") as refused:
        Home.find(os.fsdecode(b"/srv/\xff\xfe"))
    assert str(refused.value).isprintable()


def test_a_daemon_runs_while_it_holds_the_lock(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.daemon_pid() is None
    for text in ("", f"{os.getpid()}\n", "nonsense"):
        home.lock.write_text(text)
        assert home.daemon_pid() is None
    with home.lock.open("r+") as lock:
        lock_exclusively(lock.fileno())
        assert home.daemon_pid() == 0, "it has not written its process id yet"
        home.lock.write_text(f"{os.getpid()}\n")
        assert home.daemon_pid() == os.getpid()
        with home.lock.open("r+") as other, pytest.raises(BlockingIOError):
            lock_exclusively(other.fileno())
    assert home.daemon_pid() is None


def test_looking_for_a_daemon_never_holds_its_lock(tmp_path: Path) -> None:
    """The check does not make a daemon that starts at the same time believe that another one runs."""
    home = Home(tmp_path)
    home.lock.touch()
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(lambda: [home.daemon_pid() for _ in range(200)]) for _ in range(4)]
        for _ in range(200):
            with home.lock.open("r+") as lock:
                lock_exclusively(lock.fileno())
        assert all(set(each.result()) <= {None, 0} for each in looks)


def test_a_daemon_is_seen_while_others_lock_files(tmp_path: Path) -> None:
    """The kernel is asked for this file's lock, and for nothing else's."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    done = threading.Event()

    def lock_files(number: int) -> None:
        while not done.is_set():
            with (tmp_path / f"{number}").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)

    with home.lock.open("w") as lock, ThreadPoolExecutor(2) as pool:
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        lock_exclusively(lock.fileno())
        others = [pool.submit(lock_files, number) for number in range(2)]
        looks = [home.daemon_pid() for _ in range(2000)]
        done.set()
        assert [other.result() for other in others] == [None, None]
    assert set(looks) == {os.getpid()}
