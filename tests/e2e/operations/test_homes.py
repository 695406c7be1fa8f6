"""Home directories of every kind: unusual, unusable, full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fastn_p2p_client.errors as e
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import (
    AddPeer,
    AddProtocol,
    CreateIdentity,
    Message,
    RequestFor,
    SetIdentityOnline,
    Status,
)
from fastn_p2p_client.limits import MAX_NAME, UNIX_PATH_MAX
from fastn_p2p_supervisor.home_format import FORMAT
from tests.support.daemons import CLI, Daemon, eventually

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}
STRANGER = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"

as_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting and giving away files takes root")


# ── unusual ──────────────────────────────────────────────────────────────────────────────────────


NAMES = {
    "plain": "home",
    "spaces, quotes and unicode": "a 'quoted' \"twice\" $HOME of ünïcødé ☃",
    "long": "long-" + "x" * 90,
    "long in bytes": "long-" + "ü" * 45,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_home_with_an_unusual_name(short: Path, name: str) -> None:
    """The daemon works. If the path is too long for Unix sockets, the home names their directory."""
    (short / "run").mkdir(mode=0o700)
    daemon = Daemon(short / name, short / "hosts", XDG_RUNTIME_DIR=str(short / "run"))
    try:
        daemon.start()
        alice = "a" * MAX_NAME  # her socket has the longest name that there is
        created = daemon.cli("create-identity", alice)
        assert created.returncode == 0, created.stderr
        with daemon.client() as client:
            client.control(AddProtocol(alice, "Echo", "default"))
            client.control(SetIdentityOnline(alice, True))
        call = ("call", created.stdout.strip(), "Echo", "--data", '{"message": "hi"}')
        done = daemon.cli(*call)
        assert done.stdout == '{"echoed":"Echo: hi"}\n', done.stderr
        assert daemon.status().home == str(short / name)
        longest = daemon.home.path / "run" / f"identity-{'n' * 64}.sock"
        moved = len(os.fsencode(longest)) > UNIX_PATH_MAX
        assert moved == (name != "home")
        assert (daemon.home.path / "control.sock").exists() == (not moved)
        assert bool(list((short / "run").rglob("control.sock"))) == moved
        daemon.env["XDG_RUNTIME_DIR"] = str(short / "other")  # a program that was started somewhere else
        assert daemon.cli(*call).stdout == done.stdout
        assert daemon.stop() == 0
        assert not list(short.rglob("*.sock"))
        if moved:
            assert not list((short / "run" / "fastn-p2p").iterdir())
    finally:
        daemon.clean_up()


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short path, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        yield Path(name)


def test_a_home_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    daemon = Daemon(tmp_path / "link", tmp_path / "hosts")
    try:
        daemon.start()
        daemon.identity("alice")
        assert (tmp_path / "real" / "identities" / "alice" / "identity.json").exists()
    finally:
        daemon.clean_up()


def test_a_home_given_as_an_option_and_relative(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    try:
        daemon.start()
        env = {key: value for key, value in daemon.env.items() if key != "FASTN_HOME"}
        for arguments in (["--home", "home", "create-identity", "alice"], ["list-identities", "--home", "home"]):
            done = subprocess.run(
                [*CLI, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
            )
            assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("alice\t")
    finally:
        daemon.clean_up()


# ── unusable ─────────────────────────────────────────────────────────────────────────────────────


def test_a_home_of_a_newer_version(tmp_path: Path) -> None:
    """Rejected before anything is read or made in it, with what to do."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "format").write_text("99\n")
    (home / "config.toml").write_text("[a-section-of-later]\n")
    done = Daemon(home, tmp_path).cli("daemon")
    assert done.returncode == ExitCode.STORAGE
    assert done.stderr == (
        f"fastn-p2p: {home} cannot be used by the daemon: it has format 99, of a newer version of fastn-p2p; this "
        f"version has format {FORMAT}. Install the newer version again, or put back a copy of the home from before\n"
    )
    assert sorted(each.name for each in home.iterdir()) == ["config.toml", "format"]


def assert_daemon_refuses(daemon: Daemon, reason: str) -> None:
    """The daemon says what is wrong with which path; other commands say that none is running."""
    done = daemon.cli("daemon")
    assert (done.returncode, done.stdout) == (ExitCode.STORAGE, ""), done.stderr
    assert done.stderr.startswith(f"fastn-p2p: {daemon.home.path}")
    assert "cannot be used by the daemon" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    done = daemon.cli("list-identities")
    assert (done.returncode, done.stdout) == (ExitCode.DAEMON, "")
    assert done.stderr == f"fastn-p2p: {e.DaemonNotRunning(home=str(daemon.home.path))}\n"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    assert_daemon_refuses(Daemon(tmp_path / "home", tmp_path / "hosts"), "File exists")
    assert (tmp_path / "home").read_text() == "in the way"
    assert_daemon_refuses(Daemon(tmp_path / "home" / "below", tmp_path / "hosts"), "Not a directory")


def test_a_file_in_the_way_inside_the_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "identities").write_text("in the way")
    assert_daemon_refuses(Daemon(tmp_path / "home", tmp_path / "hosts"), "File exists")


def test_a_home_that_others_may_write_to(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o777)
    assert_daemon_refuses(Daemon(tmp_path / "home", tmp_path / "hosts"), f"chmod go-w {tmp_path / 'home'}")


def test_a_home_of_another_user(tmp_path: Path) -> None:
    if os.getuid() == 0:
        (tmp_path / "home").mkdir(mode=0o700)
        os.chown(tmp_path / "home", 12345, 12345)
        assert_daemon_refuses(Daemon(tmp_path / "home", tmp_path / "hosts"), "it belongs to uid 12345")
    else:
        assert_daemon_refuses(Daemon(Path("/usr"), tmp_path / "hosts"), "it belongs to uid 0")


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    if os.getuid() == 0:
        with mounted(tmp_path / "disk", "ro") as disk:
            assert_daemon_refuses(Daemon(disk / "home", tmp_path / "hosts"), "Read-only file system")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        remedy = f"chmod u+rwx {tmp_path / 'closed'}"
        assert_daemon_refuses(Daemon(tmp_path / "closed" / "home", tmp_path / "hosts"), remedy)


# ── full ─────────────────────────────────────────────────────────────────────────────────────────


class mounted:
    """A small file system of its own at ``directory``."""

    def __init__(self, directory: Path, options: str) -> None:
        self._directory = directory
        self._options = options

    def __enter__(self) -> Path:
        self._directory.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", self._directory], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
        return self._directory

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self._directory], check=True)


def fill(disk: Path) -> Path:
    """Takes what is left of the file system, to the last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(disk).free == 0
    return ballast


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    with mounted(tmp_path / "disk", "size=4m,mode=0700") as disk:
        daemon = Daemon(disk / "home", tmp_path / "hosts")
        try:
            daemon.start()
            yield daemon, disk
        finally:
            daemon.clean_up()


@as_root
def test_a_full_disk(on_a_small_disk: tuple[Daemon, Path]) -> None:
    """The daemon rejects what it cannot write and changes nothing. Calls go on. Later the daemon writes again."""
    daemon, disk = on_a_small_disk
    alice = daemon.identity("alice")
    daemon.identity("carol", online=False)
    before = daemon.status()
    ballast = fill(disk)

    commands: dict[tuple[str, ...], RequestFor[Message]] = {
        ("create-identity", "bob"): CreateIdentity("bob"),
        ("add-protocol", "alice", "--protocol", "Echo", "--alias", "new"): AddProtocol("alice", "Echo", "new"),
        ("add-protocol", "carol", "--protocol", "Echo", "--alias", "new"): AddProtocol("carol", "Echo", "new"),
        ("identity-online", "carol"): SetIdentityOnline("carol", True),
        ("identity-offline", "alice"): SetIdentityOnline("alice", False),
        ("peer", "add", STRANGER, "--name", "stranger"): AddPeer(STRANGER, "stranger"),
    }
    with daemon.client() as client:
        for line, message in commands.items():
            done = daemon.cli(*line)
            assert (done.returncode, done.stdout) == (ExitCode.STORAGE, ""), (line, done.stderr)
            assert done.stderr.startswith(f"fastn-p2p: cannot write {daemon.home.path}/")
            assert done.stderr.endswith(": the disk is full. Nothing was changed\n")
            with pytest.raises(e.StorageFailed) as caught:
                client.control(message)
            assert caught.value.reason == "the disk is full"
            assert client.call("alice", alice, "Echo", request=HI) == ECHOED
    meanwhile = daemon.status()
    assert contents_of(meanwhile) == contents_of(before)
    assert daemon.cli("status").returncode == 0

    ballast.unlink()
    for line in commands:
        done = daemon.cli(*line)
        assert done.returncode == 0, (line, done.stderr)
    assert daemon.cli("identity-online", "alice").returncode == 0
    assert daemon.stop() == 0
    daemon.start()
    status = daemon.status()
    assert [(i.name, i.online, len(i.bindings)) for i in status.identities] == [
        ("alice", True, 2),
        ("bob", False, 0),
        ("carol", True, 2),
    ]
    assert status.identities[0].id52 == alice
    assert [peer.name for peer in status.peers] == ["stranger"]
    assert [each for each in status.warnings if not each.startswith("the sandbox of")] == []  # an older kernel


def contents_of(status: Status) -> object:
    identities = [
        (i.name, i.id52, i.online, i.wanted, sorted((b.protocol, b.instance, b.state) for b in i.bindings))
        for i in status.identities
    ]
    return identities, status.peers


@as_root
def test_taking_away_works_on_a_full_disk(on_a_small_disk: tuple[Daemon, Path]) -> None:
    """Or else there would be no way out."""
    daemon, disk = on_a_small_disk
    daemon.identity("alice")
    daemon.identity("carol", online=False)
    with daemon.client() as client:
        client.control(AddPeer(STRANGER, "stranger"))
    fill(disk)
    for line in (
        ("remove-protocol", "alice", "--protocol", "Echo"),
        ("peer", "remove", "stranger"),
        ("delete-identity", "carol", "--yes"),
    ):
        done = daemon.cli(*line)
        assert done.returncode == 0, (line, done.stderr)
    status = daemon.status()
    assert [(i.name, i.bindings) for i in status.identities] == [("alice", [])]
    assert status.peers == []


@as_root
def test_actors_come_back_on_a_full_disk(on_a_small_disk: tuple[Daemon, Path]) -> None:
    """Whichever of them dies: it needs no space to serve what there is."""
    daemon, disk = on_a_small_disk
    alice = daemon.identity("alice")
    before = {process.name: process.pid for process in daemon.status().processes}
    fill(disk)
    for actor in ("vault", "network", "gateway", "identity-alice"):
        os.kill(before[actor], signal.SIGKILL)
        eventually(lambda: restored(daemon, actor, before[actor]), f"{actor} is back")  # noqa: B023
        with daemon.client() as client:
            assert client.call("alice", alice, "Echo", request=HI, timeout=50) == ECHOED


def restored(daemon: Daemon, actor: str, pid: int) -> bool:
    try:
        status = daemon.status()
    except e.P2PError:
        return False
    return any(each.name == actor and each.state == "ready" and each.pid != pid for each in status.processes)


@as_root
def test_a_daemon_that_finds_the_disk_full(on_a_small_disk: tuple[Daemon, Path]) -> None:
    """The daemon serves what it can, or reports why not. It recovers when there is space again."""
    daemon, disk = on_a_small_disk
    alice = daemon.identity("alice")
    assert daemon.stop() == 0
    ballast = fill(disk)
    daemon.launch()
    if not daemon.wait_ready():
        assert "No space left on device" in "".join(daemon.errors), daemon.report()
        assert daemon.stop() == ExitCode.STORAGE
        ballast.unlink()
        daemon.start()
    with daemon.client() as client:
        assert client.call("alice", alice, "Echo", request=HI) == ECHOED
