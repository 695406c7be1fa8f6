"""Limits of an identity's protocols: set while they run, kept over restarts, and without effect on others."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_supervisor.descendants import descendants_of
from tests.support.daemons import Daemon, eventually, is_alive
from tests.support.protocols import install_protocols
from tests.support.separate_daemons import SeparateDaemon, can_separate, open_folder
from tests.support.two_daemons import add_binding


class Home:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.alice = daemon.identity("alice")
        add_binding(daemon, "alice", "Limited")

    def use(self, what: str, amount: int = 0) -> str:
        with self.daemon.client() as client:
            return str(client.call("alice", self.alice, "Limited", request={"what": what, "amount": amount}))

    def set(self, *options: str) -> dict[str, Any]:
        done = self.daemon.cli("set-identity", "alice", *options, "--json")
        assert done.returncode == 0, done.stderr
        info: dict[str, Any] = json.loads(done.stdout)
        return info


@pytest.fixture(scope="module", params=[False, True], ids=["one user", "separate users"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param and (os.geteuid() or not can_separate()):
        pytest.skip("only root can give processes users of their own, where those may read the code")
    with open_folder() as folder:
        env = install_protocols(folder / "packages", Limited="tests.support.limited_protocol:Limited")
        daemon = SeparateDaemon(folder, **env) if request.param else Daemon(folder / "home", folder / "hosts", **env)
        daemon.start()
        try:
            yield Home(daemon)
        finally:
            daemon.clean_up()


def test_files(home: Home) -> None:
    assert home.use("file", 1 << 20) == "done"
    home.set("--max-file-size", "512K")
    assert home.use("file", 1 << 20) == "EFBIG"
    home.set("--max-file-size", "2M")
    assert home.use("file", 1 << 20) == "done", "raised again, without a restart"


def test_descriptors(home: Home) -> None:
    home.set("--max-open-files", "100")
    assert home.use("descriptors", 200) == "EMFILE"
    home.set("--max-open-files", "default")
    assert home.use("descriptors", 200) == "done"


def test_memory(home: Home) -> None:
    home.set("--max-memory", "200M")
    assert home.use("memory", 400 << 20) == "MemoryError"
    home.set("--max-memory", "1G")
    assert home.use("memory", 400 << 20) == f"has {400 << 20}"


def test_processes(home: Home) -> None:
    """More than it may have are killed, all of them; the identity goes on."""
    pid = home.daemon.pid("identity-alice")
    assert home.use("processes", 3) == "done"
    home.set("--max-processes", "5")
    assert len(descendants_of(pid)) == 3
    assert home.use("processes", 4) == "done"
    log, said = home.daemon.home.logs / "supervisor.log", r"identity-alice started [67] processes, its limit is 5"
    eventually(lambda: re.search(said, log.read_text()), "it is said")  # the supervisor may count before the seventh
    assert home.use("limits")
    assert home.daemon.pid("identity-alice") == pid
    home.set("--max-processes", "0")
    assert home.use("processes", 8) == "done"


def test_processes_end_with_the_identity(home: Home) -> None:
    home.set("--max-processes", "0")
    assert home.use("processes", 3) == "done"
    pid = home.daemon.pid("identity-alice")
    started = descendants_of(pid)
    assert len(started) >= 3
    home.daemon.kill_actor("identity-alice")
    eventually(lambda: not any(map(is_alive, started)), "all that it has started ends")
    home.daemon.wait_actor("identity-alice", pid)


def test_they_are_kept_and_shown(home: Home) -> None:
    shown = home.set("--max-memory", "500M", "--max-processes", "9", "--max-file-size", "1G", "--max-open-files", "512")
    expected = {"memory": 500 << 20, "processes": 9, "file_size": 1 << 30, "open_files": 512}
    assert shown["limits"] == expected
    for command in ("list-identities", "status"):
        found = json.loads(home.daemon.cli(command, "--json").stdout)
        identities = found if command == "list-identities" else found["identities"]
        assert identities[0]["limits"] == expected
    pid = home.daemon.kill_actor("identity-alice")
    home.daemon.wait_actor("identity-alice", pid)
    assert home.use("limits") == f"{500 << 20} {1 << 30} 512"
    assert home.set("--max-memory", "default")["limits"]["memory"] is None


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], ExitCode.USAGE, "nothing to change. Give"),
        (["--max-memory", "lots"], ExitCode.USAGE, "--max-memory: 'lots' is not a number"),
        (["--max-memory", "1M"], None, "at least"),
        (["--max-open-files", "-3"], ExitCode.USAGE, "is not a number"),
    ],
)
def test_limits_that_cannot_be_set_are_refused(
    home: Home, options: list[str], code: ExitCode | None, said: str
) -> None:
    done = home.daemon.cli("set-identity", "alice", *options)
    assert done.returncode == code if code is not None else done.returncode
    assert said in done.stderr
