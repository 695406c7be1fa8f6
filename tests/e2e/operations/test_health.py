"""``fastn-p2p health`` says in one line, and by its exit code, whether a daemon is well."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.daemons import Daemon, eventually
from tests.support.processes import signal_if_alive
from tests.support.two_daemons import TwoDaemons


def test_a_daemon_that_is_well(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("health")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "ok\n", "")
    done = daemons.one.cli("health", "--json", "--live")
    assert (done.returncode, msgspec.json.decode(done.stdout)) == (ExitCode.OK, {"ok": True, "problems": []})


def test_no_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    done = daemon.cli("health", "--json")
    found = msgspec.json.decode(done.stdout)
    assert (done.returncode, found["ok"]) == (ExitCode.DAEMON, False)
    assert [each["code"] for each in found["problems"]] == ["daemon-not-running"]
    done = daemon.cli("health")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (ExitCode.DAEMON, "", 1)


@pytest.mark.parametrize("actor", ["gateway", "network"])
def test_a_process_that_hangs(daemons: TwoDaemons, actor: str) -> None:
    one = daemons.one
    eventually(lambda: one.cli("health").returncode == ExitCode.OK, "all processes are ready")
    pid = one.pid(actor)
    os.kill(pid, signal.SIGSTOP)
    try:
        done = one.cli("health", "--timeout", "3")
        assert done.returncode == ExitCode.DAEMON, done.stderr
        assert actor in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        signal_if_alive(pid, signal.SIGCONT)
    eventually(lambda: one.cli("health").returncode == ExitCode.OK, "the daemon recovers")


def test_the_time_is_limited(daemons: TwoDaemons) -> None:
    for timeout in ("0", "nan", "-1"):
        assert daemons.one.cli("health", "--timeout", timeout).returncode == ExitCode.USAGE
    assert daemons.one.cli("health", "--timeout", "0.000001").returncode == ExitCode.TIMEOUT
