"""A daemon of an older version and one of this version understand each other, and this one starts in the other's home.

The older version is built from the history of this checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from fastn_p2p_supervisor.home_format import FORMAT
from tests.support.daemons import Daemon, eventually

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 13), reason="the older version does not load handlers there")

ROOT = Path(__file__).resolve().parents[3]
OLDER = "73d80a88e4fc"
"""The last commit whose modules, classes and messages had other names."""
PROTOCOLS = ("Echo", "Mail", "Chat", "FileTransfer")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
"""Builds a wheel in a third of the time that pip takes."""


class OlderDaemon(Daemon):
    """A daemon and a command line of the older version."""

    command = (sys.executable, "-P", "-m", "fastn_p2p", "daemon")

    def __init__(self, home: Path, hosts: Path, packages: Path) -> None:
        super().__init__(home, hosts, PYTHONPATH=str(packages))
        self._elsewhere = ["env", "-C", str(packages)]

    def launch(self, *arguments: str) -> None:  # type: ignore[override]
        super().launch(*arguments, prefix=self._elsewhere)

    def cli(self, *arguments: str, input: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._elsewhere, *self.command[:-1], *arguments],
            env=self.env, input=input, stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the older version is installed, without its dependencies."""
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("there is no history here")
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(source, filter="data")
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("packages")
    for project in (source / "client", source):
        subprocess.run(
            [sys.executable, "-c", BUILD, str(wheels)],
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            cwd=project, stdout=subprocess.DEVNULL, timeout=180, check=True,
        )  # fmt: skip
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(target)
    return target


def ran(daemon: Daemon, *arguments: str, input: str | None = None) -> str:
    """Run one command of the daemon's version; its standard output."""
    done = daemon.cli(*arguments, input=input)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def prepare(daemon: Daemon, name: str, directory: Path) -> str:
    """Create an identity with every protocol, online, and a shared file; its ID52."""
    for folder in ("shared", "inbox"):
        (directory / folder).mkdir(parents=True)
    (directory / "shared" / "report.txt").write_text(f"from {name}\n")
    id52 = ran(daemon, "create-identity", name).strip()
    files = {"root": str(directory / "shared"), "inbox": str(directory / "inbox")}
    for protocol in PROTOCOLS:
        config = json.dumps(files) if protocol == "FileTransfer" else "{}"
        ran(daemon, "add-protocol", name, "--protocol", protocol, "--config", config, "--allow", "everyone")
    ran(daemon, "identity-online", name)
    return id52


class Side:
    """Daemon with its identity."""

    def __init__(self, daemon: Daemon, name: str, directory: Path) -> None:
        self.daemon = daemon
        self.name = name
        self.directory = directory
        self.id52 = prepare(daemon, name, directory)


@pytest.fixture(scope="module")
def sides(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Side]]:
    """alice at the older daemon and bob at this one, in each other's address books."""
    directory = tmp_path_factory.mktemp("versions")
    older = OlderDaemon(directory / "older", directory / "hosts", packages)
    newer = Daemon(directory / "newer", directory / "hosts")
    try:
        older.start()
        newer.start()
        assert "/packages" in Path(f"/proc/{older.pid('network')}/environ").read_text()
        alice, bob = Side(older, "alice", directory / "alice"), Side(newer, "bob", directory / "bob")
        for side, other in ((alice, bob), (bob, alice)):
            ran(side.daemon, "peer", "add", other.id52, "--name", other.name)
        yield [alice, bob]
    finally:
        older.clean_up()
        newer.clean_up()


@pytest.fixture(params=["older calls", "newer calls"])
def pair(request: pytest.FixtureRequest, sides: list[Side]) -> tuple[Side, Side]:
    """The side that begins, and the other one."""
    here, there = sides if request.param == "older calls" else reversed(sides)
    return here, there


def test_calls(pair: tuple[Side, Side]) -> None:
    here, there = pair
    assert ran(here.daemon, "call", there.name, "Echo", input='{"message": "hi"}') == '{"echoed":"Echo: hi"}\n'
    refused = here.daemon.cli("call", there.name, "Echo", input='{"message": ""}')
    assert (refused.returncode, "MessageEmpty" in refused.stderr) == (1, True)
    assert here.daemon.cli("call", there.name, "Nothing", input="{}").returncode == 7


def test_sessions(pair: tuple[Side, Side]) -> None:
    here, there = pair
    assert ran(here.daemon, "stream", there.name, "FileTransfer", "--data", '"report.txt"') == f"from {there.name}\n"
    assert here.daemon.cli("stream", there.name, "FileTransfer", "--data", '"nothing"').returncode == 1


def test_files(pair: tuple[Side, Side], tmp_path: Path) -> None:
    here, there = pair
    ran(here.daemon, "files", "get", there.name, "report.txt", "--to", str(tmp_path))
    assert (tmp_path / "report.txt").read_text() == f"from {there.name}\n"
    sent = tmp_path / f"of-{here.name}"
    sent.write_bytes(os.urandom(300_000))
    here.daemon.cli("files", "put", there.name, str(sent), "--timeout", "0.1")  # it waits for consent
    offer = ran(there.daemon, "files", "offers").splitlines()[0].split("\t")[0]
    ran(there.daemon, "files", "accept", offer)
    ran(here.daemon, "files", "put", there.name, str(sent))
    assert (there.directory / "inbox" / sent.name).read_bytes() == sent.read_bytes()


def test_mail(pair: tuple[Side, Side]) -> None:
    here, there = pair
    ran(here.daemon, "mail", "send", there.name, "--subject", f"From {here.name}", input="At noon.")
    eventually(lambda: f"From {here.name}" in ran(there.daemon, "mail", "list"), "the mail has come")
    eventually(lambda: ran(here.daemon, "mail", "outbox") == "", "it is known to have come")


def test_chat(pair: tuple[Side, Side]) -> None:
    here, there = pair
    said = f"hello from {here.name}"
    ran(here.daemon, "chat", there.name, input=f"{said}\n")
    read = ("chat", here.name, "--last", "9")
    eventually(lambda: f"\t{said}\n" in ran(there.daemon, *read, input=""), "it has come")


def test_programs_of_one_version_use_the_daemon_of_the_other(sides: list[Side], packages: Path) -> None:
    older, newer = sides
    for side, other in ((older, newer), (newer, older)):
        env = {**other.daemon.env, "FASTN_HOME": side.daemon.env["FASTN_HOME"]}
        stranger = OlderDaemon(side.daemon.home.path, Path(), packages) if other is older else Daemon(Path(), Path())
        stranger.env = env
        assert ran(stranger, "call", other.name, "Echo", input='{"message": "hi"}') == '{"echoed":"Echo: hi"}\n'
        assert side.id52 in ran(stranger, "status", "--json")
        assert "report.txt" in ran(stranger, "files", "ls", other.name)


def test_a_home_of_the_older_version(sides: list[Side]) -> None:
    """Identities, bindings, what protocols keep, and the address book are all there. The last test with this daemon."""
    alice, bob = sides
    older = alice.daemon
    ran(older, "create-identity", "offline")
    ran(older, "mail", "send", alice.id52, "--as", "alice", "--subject", "Kept", input="x")
    eventually(lambda: "Kept" in ran(older, "mail", "list", "--as", "alice"), "it has come")
    listed = [ran(older, *each) for each in (("list-identities",), ("peer", "list"), ("mail", "list", "--as", "alice"))]
    assert bob.id52 in listed[1]
    older.stop()
    newer = Daemon(older.home.path, Path(older.env["FASTN_HOST_DIRECTORY"]))
    try:
        newer.start()
        assert newer.home.format_file.read_text() == f"{FORMAT}\n"
        found = [("identity", "list"), ("peer", "list"), ("mail", "list", "--as", "alice")]
        assert [ran(newer, *each) for each in found] == listed
        states = {each.protocol: each.state for each in newer.status().identities[0].bindings}
        assert states == dict.fromkeys(PROTOCOLS, "serving")
        assert ran(newer, "call", "alice", "Echo", input='{"message": "hi"}') == '{"echoed":"Echo: hi"}\n'
    finally:
        newer.clean_up()
