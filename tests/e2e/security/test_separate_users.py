"""Processes with users of their own: the kernel separates them also where there is no sandbox."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import DeleteIdentity, RemoveProtocol, RevokeIdentity, SetIdle
from fastn_p2p_supervisor.home_lock import HomeLock
from tests.support.daemons import CLI, DEADLINE, eventually, is_alive
from tests.support.escaping_protocol import DONE
from tests.support.protocols import install_protocols
from tests.support.separate_daemons import (
    GATEWAY,
    NETWORK,
    PROGRAMS,
    VAULT,
    SeparateDaemon,
    as_user,
    can_separate,
    open_folder,
)
from tests.support.two_daemons import add_binding

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give processes users of their own")

REFUSED: Final = frozenset({"Permission denied", "Operation not permitted"})
STRANGER: Final = 60650


@pytest.fixture(scope="module")
def daemon() -> Iterator[SeparateDaemon]:
    """alice has Escaping, bob Echo. No process has a sandbox."""
    if not can_separate():
        pytest.skip("root may not become users without accounts here, or may not let them read the code")
    with open_folder() as folder:
        env = install_protocols(folder / "packages", Escaping="tests.support.escaping_protocol:Escaping")
        daemon = SeparateDaemon(folder, FASTN_SANDBOX="off", **env)
        try:
            daemon.start()
            for name in ("alice", "bob"):
                daemon.identity(name)
            add_binding(daemon, "alice", "Escaping")
            yield daemon
        finally:
            daemon.clean_up()


def attempt(daemon: SeparateDaemon, do: str, **details: Any) -> str:
    """Have alice's protocol try something, and return what came of it."""
    with daemon.client() as client:
        outcome = client.call("bob", "alice", "Escaping", request={"do": do, **details}, timeout=DEADLINE)
    assert isinstance(outcome, str)
    return outcome


def users_of(pid: int) -> set[str]:
    """Return the real, effective, saved and file system user of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("Uid:")).split()[1:])


def test_each_process_has_a_user_and_no_capability(daemon: SeparateDaemon) -> None:
    wanted = {"vault": VAULT, "network": NETWORK, "gateway": GATEWAY}
    wanted |= {f"identity-{each}": (daemon.home.identities / each).stat().st_gid for each in ("alice", "bob")}
    assert len(set(wanted.values())) == 5
    for actor, user in wanted.items():
        pid = daemon.pid(actor)
        assert users_of(pid) == {str(user)}, actor
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()


PLACES: Final = {
    "a key": "vault/transport.key",
    "the vault": "vault",
    "the address book": "peers",
    "files of the network process": "run/network",
    "another identity": "identities/bob",
    "its config": "identities/bob/protocols/Echo/default/config.json",
    "its workspace": "identities/bob/protocols/Echo/default",
    "own permissions": "identities/alice/permissions.json",
    "own file": "identities/alice/identity.json",
    "own directory": "identities/alice",
    "the log of another": "logs/network.log",
    "the logs": "logs",
    "the home": "",
    "the processes": "run/processes.json",
    "the gateway's socket": "control.sock",
    "the network process's socket": "run/network.sock",
    "the vault's socket": "run/vault.sock",
    "the owner's socket": "run/keys.sock",
    "another identity's socket": "run/identity-bob.sock",
}


@pytest.mark.parametrize(
    ("do", "target"),
    [
        ("read", "a key"),
        ("read a link to", "a key"),
        ("link to", "a key"),
        ("list", "the vault"),
        ("list", "the address book"),
        ("list", "files of the network process"),
        ("list", "another identity"),
        ("list", "the home"),
        ("list", "the logs"),
        ("read", "its config"),
        ("read", "the log of another"),
        ("read", "the processes"),
        ("write into", "its workspace"),
        ("write into", "own directory"),
        ("write into", "the home"),
        ("write into", "the logs"),
        ("overwrite", "own permissions"),
        ("overwrite", "own file"),
        ("delete", "own permissions"),
        ("connect to the socket", "the gateway's socket"),
        ("connect to the socket", "the network process's socket"),
        ("connect to the socket", "the vault's socket"),
        ("connect to the socket", "the owner's socket"),
        ("connect to the socket", "another identity's socket"),
    ],
)
def test_a_protocol_without_a_sandbox_is_kept_from(daemon: SeparateDaemon, do: str, target: str) -> None:
    assert attempt(daemon, do, path=str(daemon.home.path / PLACES[target])) in REFUSED


@pytest.mark.parametrize("do", ["signal", "signal by descriptor", "trace", "take a descriptor", "limit", "make slow"])
def test_other_processes_are_out_of_its_reach(daemon: SeparateDaemon, do: str) -> None:
    assert daemon.process is not None
    others = [daemon.process.pid, *map(daemon.pid, ("vault", "network", "gateway", "identity-bob"))]
    assert {attempt(daemon, do, pid=pid) for pid in others} <= REFUSED
    assert {attempt(daemon, "read", path=f"/proc/{pid}/mem") for pid in others} <= REFUSED


def test_it_has_its_workspace_and_what_the_supervisor_connects(daemon: SeparateDaemon) -> None:
    workspace = daemon.home.identities / "alice/protocols/Escaping/default"
    assert attempt(daemon, "write into", path=str(workspace)) == DONE
    assert (workspace / "written").stat().st_uid == (daemon.home.identities / "alice").stat().st_gid
    assert attempt(daemon, "call", name="alice") == DONE
    assert attempt(daemon, "call as", name="bob") == "forbidden"
    assert attempt(daemon, "create identity") == "forbidden"
    socket = "/run/systemd/private"
    assert attempt(daemon, "be connected to", path=socket) in REFUSED, "it was not granted"


def test_members_of_the_group_use_the_daemon_and_others_are_told_why_not(daemon: SeparateDaemon) -> None:
    def command(user: list[str], *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*user, *CLI, *words], env=daemon.env, capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    member, stranger = as_user(STRANGER, PROGRAMS), as_user(STRANGER)
    done = command(member, "call", "bob", "Echo", "--as", "alice", "--data", '{"message": "hi"}')
    assert done.returncode == 0, done.stderr
    denied = command(stranger, "status")
    assert denied.returncode
    assert "this user may not connect to it" in denied.stderr
    locked = command(member, "vault", "status")
    assert "only its owner may change the vault; use sudo" in locked.stderr
    for words in (("log", "audit"), ("config", "set", "limits.memory", "512")):
        refused = command(member, *words)
        assert "Permission denied. If the daemon's processes have users of their own, this takes sudo" in refused.stderr


def test_killed_processes_come_back_with_their_users(daemon: SeparateDaemon) -> None:
    for actor, user in (("network", NETWORK), ("vault", VAULT), ("gateway", GATEWAY), ("identity-bob", 0)):
        pid = daemon.wait_actor(actor, daemon.kill_actor(actor))
        assert users_of(pid) == {str(user or (daemon.home.identities / "bob").stat().st_gid)}
    assert_bob_answers(daemon)


def assert_bob_answers(daemon: SeparateDaemon) -> None:
    """A process that has just started may not know of all the others yet."""

    def answers() -> bool:
        with suppress(P2PError), daemon.client() as client:
            return bool(client.call("alice", "bob", "Echo", request={"message": "x"}, retry=True, timeout=DEADLINE))
        return False

    eventually(answers, "bob answers")


def test_files_that_a_protocol_has_closed_are_deleted_with_it(daemon: SeparateDaemon) -> None:
    daemon.identity("carol", echo=False)
    add_binding(daemon, "carol", "Escaping")
    workspace = daemon.home.identities / "carol/protocols/Escaping/default"
    user = (daemon.home.identities / "carol").stat().st_gid
    closed = workspace / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"x")
    for each in (closed / "file", closed):
        os.chown(each, user, user)
    closed.chmod(0)
    with daemon.client() as client:
        client.control(RemoveProtocol("carol", "Escaping", "default"))
        client.control(DeleteIdentity("carol"))
    eventually(lambda: not list(daemon.home.identities.glob(".trash-*")), "everything is deleted")


def test_identity_that_has_slept_wakes_with_its_user(daemon: SeparateDaemon) -> None:
    dave = daemon.identity("dave")
    user = str((daemon.home.identities / "dave").stat().st_gid)

    def is_asleep() -> bool:
        state = next(each for each in daemon.status().identities if each.name == "dave")
        return state.asleep and "identity-dave" not in daemon.processes()

    def answers() -> bool:
        """A call that may be repeated would keep dave awake until its deadline."""
        with suppress(P2PError), daemon.client() as client:
            return bool(client.call("alice", dave, "Echo", request={"message": "x"}, timeout=DEADLINE))
        return False

    def fall_asleep() -> None:
        with daemon.client() as client:
            client.control(SetIdle("dave", 1))
        eventually(is_asleep, "dave is asleep")

    fall_asleep()
    daemon.wait_actor("network", daemon.kill_actor("network"))
    eventually(is_asleep, "dave is still asleep")
    eventually(answers, "dave answers")
    with daemon.client() as client:
        client.control(SetIdle("dave", 60))
    assert users_of(daemon.wait_actor("identity-dave")) == {user}
    fall_asleep()
    with daemon.client() as client:
        client.control(RevokeIdentity("dave"))
        assert not next(each for each in daemon.status().identities if each.name == "dave").online
        client.control(DeleteIdentity("dave"))


def test_the_home_is_given_back_and_taken_over(daemon: SeparateDaemon) -> None:
    """The last test, because it starts the daemon again, with sandboxes."""
    daemon.kill()
    eventually(lambda: not any(map(is_alive, daemon.seen)), "no process outlives the supervisor")
    HomeLock.acquire(daemon.home).release()  # as a daemon does that has one user for all
    owners = {each.lstat().st_uid for each in (daemon.home.path, *daemon.home.path.rglob("*"))}
    assert owners == {0}
    assert not daemon.home.users_file.exists()
    assert stat.S_IMODE(daemon.home.path.stat().st_mode) == 0o700
    daemon.env["FASTN_SANDBOX"] = "on"
    daemon.start()
    assert_bob_answers(daemon)
    assert attempt(daemon, "call", name="alice") == DONE
    assert next(daemon.home.vault.glob("*.key")).stat().st_uid == VAULT
    states = {each.name: each.sandbox for each in daemon.status().processes if each.name != "supervisor"}
    assert states.keys() == {"vault", "network", "gateway", "identity-alice", "identity-bob"}
    assert "off" not in states.values()
