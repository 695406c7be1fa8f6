"""Sandbox of each role: what the kernel leaves a process that has entered it, tried in a forked process."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from fastn_p2p_actors.runtime.process_setup import make_undumpable
from fastn_p2p_actors.runtime.sandbox import landlock, seccomp
from fastn_p2p_actors.runtime.sandbox.roles import (
    code_sandbox,
    gateway_sandbox,
    identity_sandbox,
    network_sandbox,
    vault_sandbox,
)
from fastn_p2p_actors.runtime.sandbox.sandbox import Sandbox, enter
from fastn_p2p_actors.runtime.sandbox.states import CLOSED
from fastn_p2p_client.home import Home

pytestmark = pytest.mark.skipif(
    landlock.version() < landlock.SIGNALS_VERSION or not seccomp.is_supported(),
    reason="this kernel has no Landlock of version 6, or no seccomp",
)

FILES: Final = (
    *("vault/alice.key", "identities/alice/identity.json", "identities/alice/protocols/Echo/default/config.json"),
    *("identities/alice/.tmp/file", "identities/bob/identity.json", "peers/bob.json", "run/processes.json"),
    *("logs/network.log", "logs/identity-alice.log", "config.toml", "lock", "hosts/one", "shared/file", "outside"),
)
READS: Final[dict[str, frozenset[str]]] = {
    "vault": frozenset({"vault", "run", "logs", "lock"}),
    "network": frozenset({"peers", "run", "logs", "lock", "hosts"}),
    "gateway": frozenset({"identities", "run", "logs", "lock"}),
    "identity": frozenset({"identities/alice", "logs/identity-alice.log", "lock", "shared"}),
    "worker": frozenset({"identities/alice/protocols", "identities/alice/.tmp", "shared"}),
    "worker without a binding": frozenset(),
}
"""Files that each role may read, or directories of them."""
WRITES: Final[dict[str, frozenset[str]]] = {
    "vault": frozenset({"vault", "logs"}),
    "network": frozenset({"peers", "run", "logs", "hosts"}),
    "gateway": frozenset({"identities", "logs"}),
    "identity": frozenset({"identities/alice/protocols", "identities/alice/.tmp", "logs/identity-alice.log"}),
    "worker": frozenset({"identities/alice/protocols", "identities/alice/.tmp"}),
    "worker without a binding": frozenset(),
}
SOCKETS: Final[dict[str, frozenset[str]]] = {
    "vault": frozenset({"unix"}),
    "network": frozenset({"tcp", "udp"}),
    "gateway": frozenset({"unix"}),
    "identity": frozenset({"tcp"}),
    "worker": frozenset({"tcp"}),
    "worker without a binding": frozenset(),
}


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        for each in FILES:
            path = Path(name, each)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        yield Home(Path(name))


def sandbox_of(role: str, home: Home) -> Sandbox:
    granted = (f"read {home.path / 'shared'}", "connect 127.0.0.1:9")
    made: dict[str, Callable[[], Sandbox]] = {
        "vault": lambda: vault_sandbox(home),
        "network": lambda: network_sandbox(home, home.path / "hosts"),
        "gateway": lambda: gateway_sandbox(home),
        "identity": lambda: identity_sandbox(home, "alice", granted),
        "worker": lambda: code_sandbox(home.path, home.identities / "alice", granted),
        "worker without a binding": lambda: code_sandbox(home.path),
    }
    return made[role]()


class Found(msgspec.Struct):
    """Outcome of the attempts in one sandbox."""

    state: str
    reads: list[str]
    writes: list[str]
    sockets: list[str]
    starts_programs: bool
    sees_time_zones: bool


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def attempts(home: Home, sandbox: Sandbox) -> Found:
    state = enter(sandbox)
    kinds = {
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
        "tcp": (socket.AF_INET, socket.SOCK_STREAM),
        "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    }

    def start() -> None:
        if os.fork() == 0:
            os._exit(0)

    return Found(
        state,
        [each for each in FILES if succeeds((home.path / each).read_bytes)],
        [each for each in FILES if succeeds(lambda each=each: os.close(os.open(home.path / each, os.O_WRONLY)))],  # type: ignore[misc]
        [name for name, kind in kinds.items() if succeeds(lambda kind=kind: socket.socket(*kind).close())],  # type: ignore[misc]
        succeeds(start),
        succeeds(lambda: list(Path("/usr/share").iterdir())) and succeeds(Path(os.__file__).read_bytes),
    )


def in_a_process(work: Callable[[], Found]) -> Found:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            make_undumpable()  # and no new privileges, without which an ordinary user gets no sandbox
            os.write(writer, msgspec.json.encode(work()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = file.read()
    os.waitpid(pid, 0)
    return msgspec.json.decode(found, type=Found)


def below(places: frozenset[str]) -> list[str]:
    return [each for each in FILES if any(Path(each).is_relative_to(place) for place in places)]


@pytest.mark.parametrize("role", READS)
def test_each_role_has_its_own_files_and_sockets_and_no_others(home: Home, role: str) -> None:
    sandbox = sandbox_of(role, home)
    assert in_a_process(lambda: attempts(home, sandbox)) == Found(
        CLOSED,
        below(READS[role]),
        below(WRITES[role]),
        [name for name in ("unix", "tcp", "udp") if name in SOCKETS[role]],
        starts_programs=False,
        sees_time_zones=True,
    )


@pytest.mark.parametrize("role", ["vault", "network", "gateway"])
def test_no_link_is_made_through_which_another_process_would_write(home: Home, role: str) -> None:
    """The supervisor, which has no sandbox, writes to ``run/`` and ``logs/``."""
    sandbox = sandbox_of(role, home)
    directories = {str(Path(each).parent) for each in below(WRITES[role])}

    def work() -> Found:
        state = enter(sandbox)
        for each in directories:
            (home.path / each / "new").touch()
        links = [each for each in directories if succeeds(lambda: (home.path / each / "link").symlink_to("/etc"))]  # noqa: B023
        pipes = [each for each in directories if succeeds(lambda: os.mkfifo(home.path / each / "pipe"))]  # noqa: B023
        return Found(state, links, pipes, [], False, True)

    assert in_a_process(work) == Found(CLOSED, [], [], [], False, True)


def test_the_gateway_makes_its_socket_and_removes_no_key(home: Home) -> None:
    sandbox = gateway_sandbox(home)

    def work() -> Found:
        state = enter(sandbox)
        with socket.socket(socket.AF_UNIX) as made:
            binds = succeeds(lambda: made.bind(str(home.control_socket)))
        removes = succeeds((home.vault / "alice.key").unlink)
        return Found(state, [], ["key"] if removes else [], ["control"] if binds else [], False, True)

    assert in_a_process(work) == Found(CLOSED, [], [], ["control"], False, True)


def test_a_granted_directory_above_the_home_leaves_the_home_closed(home: Home) -> None:
    inner = Home(home.path / "shared" / "fastn")
    for each in ("vault", "identities/alice/protocols"):
        (inner.path / each).mkdir(parents=True)
    (inner.vault / "alice.key").write_text("x")
    sandbox = identity_sandbox(inner, "alice", (f"read {home.path / 'shared'}", f"read {inner.vault}"))

    def work() -> Found:
        state = enter(sandbox)
        places = {"file": home.path / "shared/file", "key": inner.vault / "alice.key", "home": inner.path / "lock"}
        (home.path / "shared").iterdir()
        return Found(state, [name for name, path in places.items() if succeeds(path.read_bytes)], [], [], False, True)

    assert in_a_process(work) == Found(CLOSED, ["file"], [], [], False, True)
