"""A sandbox holds against the protocol code in it: each attempt is refused, and succeeds without the sandbox."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from fastn_p2p_actors.runtime.sandbox import landlock, seccomp
from fastn_p2p_client.errors import HandlerFailed, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon, eventually
from tests.support.escaping_protocol import ATTEMPTS, DONE
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding

_HAS_SANDBOX: Final = landlock.version() >= landlock.SIGNALS_VERSION and seccomp.is_supported()
pytestmark = [
    pytest.mark.skipif(not _HAS_SANDBOX, reason="this kernel has no Landlock of version 6, or no seccomp"),
    pytest.mark.usefixtures("daemons_are_programs"),
]

REFUSED: Final = frozenset({"Permission denied", "Operation not permitted", "Invalid cross-device link"})
"""Answers of the kernel. The last one is that of a link from one directory to another with other rights."""
REFUSED_WARNING: Final = "the sandbox of identity-alice has refused to its protocols: "


@dataclass
class Setup:
    """alice is online with Escaping, bob with Echo. ``outside`` is a directory; something listens on ``port``."""

    daemon: Daemon
    keys: dict[str, str]
    outside: Path
    port: int

    @property
    def sockets(self) -> dict[str, str]:
        home = self.daemon.home
        mailboxes = {name: str(home.mailbox(name)) for name in ("network", "vault", "identity-bob")}
        return {"gateway": str(home.control_socket), **mailboxes}

    def attempt(self, do: str, instance: str = "default", caller: str = "bob", **details: Any) -> str:
        with self.daemon.client() as client:
            order = {"do": do, **details}
            outcome = client.call(caller, self.keys["alice"], "Escaping", instance, request=order, timeout=60)
            assert isinstance(outcome, str)
            return outcome

    def state_of(self, instance: str) -> str:
        """Return the state of alice's binding."""
        alice = next(each for each in self.daemon.status().identities if each.name == "alice")
        return next(each.state for each in alice.bindings if each.instance == instance)


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def _running(folder: Path, listener: socket.socket, sandbox: str) -> Iterator[Setup]:
    env = install_protocols(folder / "packages", Escaping="tests.support.escaping_protocol:Escaping")
    outside = folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    daemon = Daemon(folder / "home", folder / "hosts", FASTN_SANDBOX=sandbox, **env).start()
    try:
        keys = {name: daemon.identity(name) for name in ("alice", "bob")}
        add_binding(daemon, "alice", "Escaping")
        yield Setup(daemon, keys, outside, listener.getsockname()[1])
    finally:
        daemon.clean_up()


@pytest.fixture(scope="module")
def closed(listener: socket.socket) -> Iterator[Setup]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        yield from _running(Path(name), listener, "on")


@pytest.fixture(scope="module")
def opened(listener: socket.socket) -> Iterator[Setup]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        yield from _running(Path(name), listener, "off")


def details_of(setup: Setup, target: str) -> dict[str, Any]:
    """Return the details of an order that is aimed at ``target``."""
    home = setup.daemon.home
    places = {
        "a key": next(home.vault.rglob("*.key")),
        "the vault": home.vault,
        "a key through its own process": Path(f"/proc/self/root{next(home.vault.rglob('*.key'))}"),
        "all processes": Path("/proc"),
        "shared memory": Path("/dev/shm"),
        "the packages": Path(sysconfig.get_path("purelib")),
        "the user's settings": Path.home(),
        "another identity": home.identities / "bob",
        "its config": home.identities / "bob/identity.json",
        "own permissions": home.identities / "alice/identity.json",
        "the home": home.path,
        "a file outside": setup.outside / "file",
        "a directory outside": setup.outside,
        "the log of another": home.logs / "network.log",
        "the code of the daemon": Path(landlock.__file__),
        "a program": Path("/bin/true"),
        "the gateway's socket": home.control_socket,
        "the network process's socket": home.mailbox("network"),
        "the vault's socket": home.mailbox("vault"),
    }
    if target in places:
        return {"path": str(places[target])}
    if target in ("network", "gateway", "vault", "identity-bob"):
        return {"pid": setup.daemon.pid(target)}
    kind, _, process = target.partition(" of ")
    if kind in PROCESS_FILES:
        return {"path": f"/proc/{setup.daemon.pid(process)}/{PROCESS_FILES[kind]}"}
    return {"port": setup.port}


PROCESS_FILES: Final = {"memory": "mem", "environment": "environ", "command line": "cmdline"}
WHAT: Final = [
    ("read", "a key"),
    ("read", "a key through its own process"),
    ("read", "command line of vault"),
    ("list", "all processes"),
    ("read a link to", "a key"),
    ("list", "the vault"),
    ("list", "another identity"),
    ("list", "the home"),
    ("read", "its config"),
    ("read", "a file outside"),
    ("read", "the log of another"),
    ("write into", "a directory outside"),
    ("write into", "another identity"),
    ("overwrite", "own permissions"),
    ("overwrite", "the code of the daemon"),
    ("overwrite", "a file outside"),
    ("truncate", "a file outside"),
    ("make a directory in", "a directory outside"),
    ("move out to", "a directory outside"),
    ("link to", "a file outside"),
    ("execute", "a program"),
    ("fork", ""),
    ("connect to the socket", "the gateway's socket"),
    ("connect to the socket", "the network process's socket"),
    ("connect to the socket", "the vault's socket"),
    ("connect by TCP", ""),
    ("listen", ""),
    ("send UDP", ""),
    ("socket to datagrams", ""),
    ("raise a limit", ""),
    ("share memory", ""),
    ("share a queue", ""),
    ("change the disk priority of", "network"),
    ("signal", "network"),
    ("signal", "identity-bob"),
    ("signal by descriptor", "gateway"),
]
"""Attempts that succeed without a sandbox, and their targets."""
PROTECTED: Final = [
    ("read", "memory of network"),
    ("read", "memory of gateway"),
    ("read", "environment of network"),
    ("write into", "shared memory"),
    ("write into", "the packages"),
    ("write into", "the user's settings"),
    ("send to the socket", "the gateway's socket"),
    ("connect to an abstract socket", ""),
    ("connect by fast open", ""),
    ("execute memory", ""),
    ("type into the terminal", ""),
    ("trace", "network"),
    ("read memory", "gateway"),
    ("take a descriptor", "network"),
    ("limit", "vault"),
    ("make slow", "network"),
    ("raw socket", ""),
    ("new namespace", ""),
    ("io_uring", ""),
    ("bpf", ""),
    ("kernel keys", ""),
]
"""Attempts that succeed without a sandbox if the user is root, or on some kernels."""
ACTING: Final = [
    ("call as", "bob"),
    ("create identity", ""),
    ("delete identity", "bob"),
    ("add protocol", "bob"),
    ("read status", ""),
    ("take offline", "bob"),
]


def named(attempt: tuple[str, str]) -> str:
    return " ".join(attempt).strip().replace(" ", "-")


@pytest.mark.parametrize(("do", "target"), [*WHAT, *PROTECTED], ids=map(named, [*WHAT, *PROTECTED]))
def test_an_attempt_is_refused(closed: Setup, do: str, target: str) -> None:
    assert closed.attempt(do, **details_of(closed, target)) in REFUSED


@pytest.mark.parametrize(("do", "target"), WHAT, ids=map(named, WHAT))
def test_it_would_succeed_without_a_sandbox(opened: Setup, do: str, target: str) -> None:
    assert opened.attempt(do, **details_of(opened, target)) == DONE


@pytest.mark.parametrize(("do", "name"), ACTING, ids=map(named, ACTING))
def test_code_of_an_identity_may_not_act_as_its_owner_or_as_another_one(closed: Setup, do: str, name: str) -> None:
    assert closed.attempt(do, name=name) == "forbidden"
    assert closed.attempt(do, name=name) == "forbidden"
    log = (closed.daemon.home.logs / ("network.log" if do == "call as" else "gateway.log")).read_text()
    assert log.count("code of alice was refused: " + LOGGED[do]) == 1, log


LOGGED: Final = {
    "call as": "Call as 'bob'",
    "create identity": "CreateIdentity",
    "delete identity": "DeleteIdentity",
    "add protocol": "AddProtocol",
    "read status": "GetStatus",
    "take offline": "SetIdentityOnline",
}


def test_every_attempt_is_tried() -> None:
    assert {do for do, _ in (*WHAT, *PROTECTED, *ACTING)} == set(ATTEMPTS) - {
        "call",
        "delete",
        "fail at",
        "be connected to",
        "find a descriptor of",
        "fill the disk",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_an_identity_that_fills_the_disk_is_taken_offline_and_the_owner_is_told(tmp_path: Path) -> None:
    env = install_protocols(tmp_path / "packages", Escaping="tests.support.escaping_protocol:Escaping")
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=256m,mode=700", "disk", name]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this root may not mount")
        daemon = Daemon(Path(name) / "home", tmp_path / "hosts", FASTN_SANDBOX="on", **env).start()
        try:
            keys = {each: daemon.identity(each) for each in ("alice", "bob")}
            add_binding(daemon, "alice", "Escaping")
            assert Setup(daemon, keys, tmp_path, 0).attempt("fill the disk") == DONE

            def warnings() -> list[str]:
                return [each for each in daemon.status().warnings if "almost full" in each]

            eventually(lambda: bool(warnings()), "the owner is told", 60)
            assert "protocols of alice have filled it with" in warnings()[0]
            eventually(lambda: "identity-alice" not in daemon.processes(), "alice is stopped", 60)
            with daemon.client() as client:
                assert client.call("bob", keys["bob"], "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        finally:
            daemon.clean_up()
            subprocess.run(["umount", "-l", name], check=True)


def test_code_calls_as_its_own_identity(closed: Setup) -> None:
    assert closed.attempt("call", name="alice") == DONE


def test_a_refusal_is_logged_once_with_the_command_that_allows_it(closed: Setup) -> None:
    path = closed.outside / "wanted"
    path.write_text("x")
    for _ in range(2):
        assert closed.attempt("read", path=str(path)) in REFUSED
    log = (closed.daemon.home.logs / "identity-alice.log").read_text()
    line = re.escape(f"the sandbox refuses to Escaping (default): read {path}. If you trust the protocol: ") + "(.*)"
    (command,) = re.findall(line, log)
    warnings = closed.daemon.status().warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(REFUSED_WARNING)

    assert closed.daemon.cli(*shlex.split(command)[1:]).returncode == 0
    assert closed.attempt("read", path=str(path)) == DONE
    assert f"read {path}" in closed.daemon.cli("access", "alice", "--json").stdout
    binding = ("alice", "--protocol", "Escaping")
    assert closed.daemon.cli("set-protocol", *binding, "--config", "{}").returncode == 0
    assert closed.attempt("read", path=str(path)) == DONE  # a new config does not end it
    assert closed.daemon.cli("set-protocol", *binding, "--reset-grants").returncode == 0
    assert closed.attempt("read", path=str(path)) in REFUSED


def test_a_binding_without_its_permissions_says_how_to_grant_them(closed: Setup) -> None:
    """As after an upgrade from a daemon that knew no permissions."""
    line = f"read {closed.outside}"
    add_binding(closed.daemon, "alice", "Escaping", "older", permissions=[line])
    try:
        assert closed.daemon.cli("identity-offline", "alice").returncode == 0
        (closed.daemon.home.identities / "alice/permissions.json").write_text('{"complete":true}')
        assert closed.daemon.cli("identity-online", "alice").returncode == 0
        command = "fastn-p2p set-protocol alice --protocol Escaping --instance older --yes"
        failed = f"failed: it needs permissions that were not granted: {line}. If you trust it: {command}"
        assert closed.state_of("older") == failed
        assert closed.state_of("default") == "serving"
        started = closed.daemon.cli("protocol", "start", "alice", "Escaping", "older")
        assert (started.returncode, f"not granted: {line}" in started.stderr) == (2, True)
        assert closed.daemon.cli(*command.split()[1:]).returncode == 0
        assert closed.state_of("older") == "serving"
        assert closed.attempt("list", "older", path=str(closed.outside)) == DONE
    finally:
        with closed.daemon.client() as client:
            client.control(m.RemoveProtocol("alice", "Escaping", "older"))


def test_the_log_names_the_sandbox_as_a_reason(closed: Setup) -> None:
    with pytest.raises(HandlerFailed):
        closed.attempt("fail at", path=str(closed.outside / "file"))
    log = (closed.daemon.home.logs / "identity-alice.log").read_text()
    assert "uncaught RuntimeError. The sandbox may be the reason" in log


def test_it_inherits_no_descriptor_of_a_file_of_others(closed: Setup) -> None:
    home = closed.daemon.home
    for place in (home.vault, home.peers, home.identities, home.path / "hosts"):
        assert closed.attempt("find a descriptor of", path=str(place)) == "No such file or directory"
    assert closed.attempt("find a descriptor of", path=str(home.logs)) == DONE  # of its own log


def test_code_uses_its_workspace(closed: Setup) -> None:
    workspace = closed.daemon.home.identities / "alice/protocols/Escaping/default"
    for do in ("write into", "make a directory in", "list"):
        assert closed.attempt(do, path=str(workspace)) == DONE
    for do in ("read", "overwrite", "truncate", "delete"):
        assert closed.attempt(do, path=str(workspace / "written")) == DONE


def test_a_grant_of_the_owner_is_allowed_and_no_more(closed: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        target, outside = f"connect 127.0.0.1:{closed.port}", str(closed.outside)
        config = json.dumps({"permissions": [f"write {outside}", target]})
        command = ("--protocol", "Escaping", "--instance", "granted", "--config")
        asked = closed.daemon.cli("add-protocol", "alice", *command, config)
        assert (asked.returncode, f"were not granted: write {outside}; {target}." in asked.stderr) == (2, True)
        assert closed.daemon.cli("add-protocol", "alice", *command, config, "--yes").returncode == 0
        try:
            assert closed.attempt("write into", "granted", path=outside) == DONE
            assert closed.attempt("connect by TCP", "granted", port=closed.port) == DONE
            assert closed.attempt("connect by TCP", "granted", port=other.getsockname()[1]) in REFUSED
            assert closed.attempt("connect by fast open", "granted", port=other.getsockname()[1]) in REFUSED
            assert closed.attempt("execute", "granted", path="/bin/true") in REFUSED
            assert closed.attempt("list", "granted", path=str(closed.outside.parent)) in REFUSED

            more = json.dumps({"permissions": [f"write {outside}", "program /bin/true"]})
            assert closed.daemon.cli("set-protocol", "alice", *command, more).returncode == 2
            assert closed.attempt("execute", "granted", path="/bin/true") in REFUSED
            assert closed.daemon.cli("set-protocol", "alice", *command, more, "--yes").returncode == 0
            assert closed.attempt("execute", "granted", path="/bin/true") == DONE
            assert closed.attempt("execute", "granted", path="/bin/ls") in REFUSED
            assert closed.attempt("connect by TCP", "granted", port=closed.port) in REFUSED  # that is needed no more
        finally:
            command = ("--protocol", "Escaping", "--instance", "granted", "--yes")
            assert closed.daemon.cli("remove-protocol", "alice", *command).returncode == 0
    assert closed.attempt("write into", path=outside) in REFUSED


def test_a_granted_directory_that_is_made_later_or_replaced_is_used(closed: Setup) -> None:
    place = closed.outside / "disk"
    add_binding(closed.daemon, "alice", "Escaping", "disk", permissions=[f"write {place}"])
    try:
        for _ in range(2):
            place.mkdir()
            eventually(lambda: attempted(closed, place) == DONE, "the directory is used", interval=0.1)
            place.rename(closed.outside / f"moved-{_}")
        assert {each.name: each.restarts for each in closed.daemon.status().processes}["identity-bob"] == 0
    finally:
        with closed.daemon.client() as client:
            client.control(m.RemoveProtocol("alice", "Escaping", "disk"))


def attempted(setup: Setup, place: Path) -> str:
    """Return the outcome of an attempt to write; the code of an error while the process restarts."""
    try:
        return setup.attempt("write into", "disk", path=str(place))
    except P2PError as error:
        return error.code


def test_the_supervisor_connects_to_what_was_granted_only(closed: Setup) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        path = closed.outside / "service"
        service.bind(str(path))
        service.listen()
        assert closed.attempt("be connected to", path=str(path)) == "Operation not permitted"
        for name in ("gateway", "network"):
            assert closed.attempt("be connected to", path=closed.sockets[name]) == DONE
        assert closed.attempt("be connected to", path=closed.sockets["vault"]) == "Operation not permitted"
        assert closed.attempt("be connected to", path=closed.sockets["identity-bob"]) == "Operation not permitted"


def test_status_says_which_sandbox_is_open(closed: Setup, opened: Setup) -> None:
    states = {each.name: each.sandbox for each in closed.daemon.status().processes}
    assert states == {
        "supervisor": "",
        "vault": "closed",
        "network": "closed",
        "gateway": "closed",
        "identity-alice": "closed",
        "identity-bob": "closed",
    }
    assert all(each.startswith(REFUSED_WARNING) for each in closed.daemon.status().warnings)
    states = {each.name: each.sandbox for each in opened.daemon.status().processes}
    assert set(states.values()) == {"", "off"}
    assert opened.daemon.status().warnings == []


def test_other_processes_are_as_they_were(closed: Setup) -> None:
    with closed.daemon.client() as client:
        assert client.call("bob", closed.keys["alice"], "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        assert {each.name for each in client.control(m.ListIdentities()).identities} == {"alice", "bob"}
