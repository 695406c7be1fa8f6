"""Other processes of the same user can neither trace nor read the daemon's, nor make them fork."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastn_p2p.console.program_restart import SUPERVISOR_ORDER
from tests.support.daemons import Daemon, eventually
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding

pytestmark = pytest.mark.usefixtures("daemons_are_programs")


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="fastn-") as name:
        env = install_protocols(Path(name) / "packages", Guarded="tests.support.guarded_protocol:Guarded")
        daemon = Daemon(Path(name) / "home", Path(name) / "hosts", **env).start()
        daemon.identity("alice")
        add_binding(daemon, "alice", "Guarded")
        yield daemon
        daemon.clean_up()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def everyone(daemon: Daemon) -> dict[str, int]:
    """Return the pids of all processes."""
    pids = daemon.pids()
    assert daemon.process is not None
    return {"supervisor": daemon.process.pid, "fork server": parent_of(pids["vault"]), **pids}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_no_process_can_be_traced_or_gains_privileges(running: Daemon) -> None:
    pids = everyone(running)
    assert set(pids) == {"supervisor", "fork server", "vault", "network", "gateway", "identity-alice"}
    for name, pid in pids.items():
        assert status_of(pid)["NoNewPrivs"] == "1", name
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0, name
        if os.geteuid() != 0:
            with pytest.raises(PermissionError), Path(f"/proc/{pid}/mem").open("rb"):
                pass


def test_the_supervisor_keeps_nothing_of_the_command_line_but_its_arguments(running: Daemon) -> None:
    pids = everyone(running)
    assert b"\0-m\0fastn_p2p\0daemon" in Path(f"/proc/{pids['supervisor']}/cmdline").read_bytes()
    if os.geteuid() == 0:
        for name, pid in pids.items():
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"PATH=" in environment, name
            assert SUPERVISOR_ORDER.encode() not in environment, name


def test_status_still_knows_what_they_use(running: Daemon) -> None:
    eventually(lambda: all(each.memory for each in running.status().processes), "each has said it")
    assert all(each.memory < 200 * 1024 * 1024 for each in running.status().processes)


def test_protocol_code_and_what_it_starts(running: Daemon) -> None:
    """A program that it executes can be traced again: it has nothing of the daemon in its memory.

    The check of the config, in a process of its own, has passed before."""
    with running.client() as client:
        alice = running.status().identities[0].id52
        found = client.call("alice", alice, "Guarded", request=None)
    assert found == {"own": 0, "forked": 0, "executed gains nothing": 1}


# ── the fork server's socket ─────────────────────────────────────────────────────────────────────


def listener(daemon: Daemon) -> Path:
    return next((daemon.home.sockets / "run").rglob("listener-*"))


@contextlib.contextmanager
def connected(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(listener(daemon)))  # waits while too many others do
        sock.settimeout(60)
        yield sock


def say_nothing(daemon: Daemon) -> None:
    with connected(daemon):
        pass


def send_bytes(daemon: Daemon) -> None:
    with connected(daemon) as sock, contextlib.suppress(OSError):
        sock.sendall(b"x")
        sock.sendall(os.urandom(100_000))


def send_descriptors(daemon: Daemon) -> None:
    for count in (1, 3, 250):
        with connected(daemon) as sock, contextlib.suppress(OSError), Path(os.devnull).open() as null:
            rights = array.array("i", [null.fileno()] * count)
            sock.sendmsg([bytes([count % 256])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            sock.recv(1)


def flood(daemon: Daemon) -> None:
    for _ in range(2000):
        say_nothing(daemon)


@pytest.mark.parametrize("attack", [say_nothing, send_bytes, send_descriptors, flood])
def test_the_fork_server_listens_to_the_supervisor_alone(running: Daemon, attack: Callable[[Daemon], None]) -> None:
    before = everyone(running)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(running))  # they stay, and never say anything
        attack(running)
        vault = running.kill_actor("vault")
        running.wait_actor("vault", vault)
    after = everyone(running)
    assert {name for name in before if before[name] != after[name]} == {"vault"}, "and nobody else was started again"
