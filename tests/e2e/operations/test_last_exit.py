"""A daemon that cannot go on ends, says why while none runs and after the next start, and is back at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.daemons import Daemon, eventually


def kill_the_vault_until_it_ends(daemon: Daemon) -> int:
    """By hand, as quickly as it comes back; returns how often it took."""
    assert daemon.process is not None
    kills, last = 0, 0
    while daemon.process.poll() is None:
        pid = daemon.processes().get("vault", {}).get("pid", 0)
        if pid and pid != last:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills, last = kills + 1, pid
                daemon.seen.add(pid)
    return kills


def test_a_vault_that_is_killed_again_and_again(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.identity("alice")
    daemon.remember()
    assert kill_the_vault_until_it_ends(daemon) >= 6
    assert daemon.stop() == ExitCode.DAEMON, "it has ended by itself"
    assert "starts it again" in "".join(daemon.errors)
    reason = "vault keeps ending (killed by SIGKILL)"
    assert reason in "".join(daemon.errors)

    down = daemon.cli("status")
    assert down.returncode == ExitCode.DAEMON
    assert f"no daemon is running for {daemon.home.path}" in down.stderr
    assert f"the last daemon ended: {reason} (at " in down.stderr
    assert str(daemon.home.logs) in down.stderr

    daemon.start()
    eventually(lambda: daemon.status().identities[0].online, "alice is online again")
    assert any(f"the one before ended: {reason}" in warning for warning in daemon.status().warnings)
    assert f"the previous daemon ended: {reason}" in (daemon.home.logs / "supervisor.log").read_text()
    assert daemon.stop() == 0
    assert "the last daemon ended" not in daemon.cli("status").stderr, "it was stopped"
    daemon.start()
    assert not any("the one before" in warning for warning in daemon.status().warnings)


def test_a_daemon_that_was_killed(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.kill()
    assert "the last daemon ended: it was killed, or the machine went down" in daemon.cli("status").stderr
    daemon.start()
    assert any("the one before ended: it was killed" in warning for warning in daemon.status().warnings)


def test_the_unit_starts_it_again_soon() -> None:
    unit = Path(__file__).resolve().parents[3] / "deploy" / "systemd" / "fastn-p2p.service"
    lines = unit.read_text().splitlines()
    assert {"Restart=on-failure", "RestartSec=200ms"} <= set(lines)
    refused = next(line for line in lines if line.startswith("RestartPreventExitStatus="))
    assert str(ExitCode.DAEMON.value) not in refused.partition("=")[2].split()
