"""``health``, ``doctor``, ``bug-report``, ``metrics``: what is wrong with a daemon, for probes, owners and helpers."""

from __future__ import annotations

import re
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import AddPeer
from tests.support.daemons import Daemon, eventually
from tests.support.processes import send_signal, signal_if_alive
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
    send_signal(pid, signal.SIGSTOP)
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


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────


def test_doctor(daemons: TwoDaemons, tmp_path: Path) -> None:
    done = daemons.one.cli("doctor", "--local", "--json")
    checks = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    found = {each["name"]: each["state"] for each in checks}
    assert found["daemon"] == found["home"] == found["sockets"] == found["settings"] == found["secrets"] == "ok"
    assert found["vault"] == "warning"  # not encrypted
    assert done.returncode == (ExitCode.APPLICATION if "problem" in found.values() else ExitCode.OK)

    stopped = Daemon(tmp_path / "home", tmp_path / "hosts")
    done = stopped.cli("doctor", "--local")
    assert "unknown  daemon: none is running" in done.stdout
    assert not stopped.home.path.exists()
    stopped.home.path.mkdir(mode=0o700)
    stopped.home.config_file.write_text("[network]\nmodes = 1\n")
    done = stopped.cli("doctor")
    assert done.returncode == ExitCode.APPLICATION
    assert "problem  settings: " in done.stdout


# ── bug-report ───────────────────────────────────────────────────────────────────────────────────


def test_bug_report_has_no_names_keys_addresses_and_messages(daemons: TwoDaemons, tmp_path: Path) -> None:
    one = daemons.one
    secret = "a message of its own"
    with one.client() as client:
        client.control(AddPeer(daemons.bob, "bobby"))
        client.call("alice", "bobby", "Echo", request={"message": secret})
    file = tmp_path / "report.txt"
    assert one.cli("bug-report", "--local", "--output", str(file)).returncode == ExitCode.USAGE  # no terminal
    done = one.cli("bug-report", "--local", "--yes", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, f"{file}\n", "")
    assert file.stat().st_mode & 0o777 == 0o600
    report = file.read_text()
    status = one.status()
    private = {"alice", "bobby", secret, daemons.alice, daemons.bob, status.endpoint, str(one.home.path)}
    assert [each for each in private if each in report] == []
    for part in (
        "== doctor ==",
        "== Settings ==",
        "== status ==",
        "== logs/network.log ==",
        "<peer-1>",
        "<identity-1>",
    ):
        assert part in report
    assert one.cli("bug-report", "--local", "--yes", "--output", str(file)).returncode == ExitCode.EXISTS
    stopped = Daemon(tmp_path / "home", tmp_path / "hosts")
    assert stopped.cli("bug-report", "--local", "--yes", "--output", str(tmp_path / "other")).returncode == ExitCode.OK


# ── metrics and levels of logs ─────────────────────────────────────────────────────────────────────


def test_metrics_of_a_daemon_and_of_a_gateway_that_was_restarted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts", FASTN_METRICS=f"unix:{path}")

    def scrape() -> str:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(path))
            connected.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return b"".join(iter(partial(connected.recv, 2**16), b"")).decode()
        return ""

    daemon.home.path.mkdir(mode=0o700)
    daemon.home.config_file.write_text('[log]\nlevel = "ERROR"\n')
    daemon.start()
    try:
        alice = daemon.identity("alice")
        with daemon.client() as client:
            for _ in range(3):
                client.call("alice", alice, "Echo", request={"message": "hi"})
            with pytest.raises(Exception, match="Nope"):
                client.call("alice", alice, "Nope", request={})
        page = scrape()
        assert page.startswith("HTTP/1.1 200")
        assert 'fastn_p2p_calls_total{direction="made"} 4.0' in page
        assert 'fastn_p2p_call_errors_total{code="protocol-not-found",direction="made"} 1.0' in page
        assert 'fastn_p2p_call_duration_seconds_count{direction="served"} 3.0' in page
        printed = daemon.cli("metrics").stdout
        names = [line.split()[2] for line in printed.splitlines() if line.startswith("# TYPE")]
        assert all(f"# TYPE {name} " in page for name in names)
        pid = daemon.kill_actor("gateway")
        daemon.wait_actor("gateway", not_pid=pid)
        page = eventually(scrape, "the next gateway serves metrics")
        assert 'fastn_p2p_process_restarts_total{process="gateway"} 1.0' in page
        assert daemon.status().warnings == []

        assert daemon.cli("logs").stdout == ""
        done = daemon.cli("config", "set", "log.level", "info")
        assert "uses it now" in done.stderr
        daemon.wait_actor("network", not_pid=daemon.kill_actor("network"))

        def logging_actors() -> set[str]:
            lines = daemon.cli("logs", "--json", "--level", "info").stdout.splitlines()
            return {msgspec.json.decode(line)["actor"] for line in lines}

        eventually(lambda: {"supervisor", "network"} <= logging_actors(), "running and new processes log more")
    finally:
        daemon.clean_up()


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


def test_logs_of_all_processes(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("logs", "--json", "--level", "info")
    records = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert all(set(each) == {"time", "level", "actor", "logger", "message", "request_id", "trace"} for each in records)
    assert [each["time"] for each in records] == sorted(each["time"] for each in records)
    assert {"supervisor", "network"} <= {each["actor"] for each in records}
    done = daemons.one.cli("logs", "--actor", "supervisor", "--lines", "2")
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["supervisor"] * 2
    assert daemons.one.cli("logs", "--level", "loud").returncode == ExitCode.USAGE
    assert "no such line" in daemons.one.cli("logs", "--actor", "vault", "--since", "2999-01-01T00:00").stderr


def test_logs_that_do_not_exist_are_named(daemons: TwoDaemons, tmp_path: Path) -> None:
    done = daemons.one.cli("logs", "--actor", "nobody")
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert re.match(
        r"fastn-p2p: there is no process or identity 'nobody'\. There are: .*gateway, .*network", done.stderr
    )
    done = daemons.one.cli("logs", "--home", str(tmp_path))
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert "no daemon has run with this home. Start one: fastn-p2p daemon" in done.stderr
