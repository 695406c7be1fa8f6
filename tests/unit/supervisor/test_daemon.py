"""A daemon with stub actors, from its start to its exit code."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_client.home import Home
from tests.support.processes import signal_if_alive
from tests.support.stub_daemon import eventually, processes, seconds_until_gone, short_path, stub_daemon

CORE = ["vault", "network", "gateway"]


@pytest.fixture
def home() -> Iterator[Path]:
    with short_path() as path:
        yield path


def test_ready_line_start_order_and_clean_end(home: Path) -> None:
    with stub_daemon(home, identities=("alice", "bob")) as daemon:
        line = daemon.ready()
        status = f"network local, 2 identities online (pid {daemon.pid})"
        assert re.fullmatch(rf"fastn-p2p \S+ ready in \d+\.\d\d s: home {home}, {re.escape(status)}\n", line)
        process_file = daemon.process_file()
        assert (process_file["supervisor"], process_file["state"], process_file["network"]) == (
            daemon.pid,
            "ready",
            "local",
        )
        assert [child["name"] for child in process_file["processes"]] == [*CORE, "identity-alice", "identity-bob"]
        assert {child["state"] for child in process_file["processes"]} == {"ready"}
        assert {child["restarts"] for child in process_file["processes"]} == {0}
        assert len(processes(home)) == 1 + 1 + 5  # the supervisor, the fork server, the actors; no resource tracker
        seconds_until_gone(processes(home), lambda: daemon.process.send_signal(signal.SIGTERM))
        assert daemon.end() == (0, "")
    order = [line.split()[2] for line in (home / "diary").read_text().splitlines() if line.endswith("stopped")]
    assert sorted(order[:2]) == ["identity-alice", "identity-bob"]
    assert order[2:] == ["gateway", "network", "vault"]
    assert [each.name for each in (home / "run").iterdir()] == ["last-exit.json"]
    assert Home(home).lock.read_text() == ""


def test_an_actor_that_is_killed_is_restarted_alone(home: Path) -> None:
    with stub_daemon(home) as daemon:
        daemon.ready()
        before = {name: daemon.child(name)["pid"] for name in CORE}
        seconds_until_gone([before["vault"]], lambda: signal_if_alive(before["vault"], signal.SIGKILL))
        vault = daemon.wait_child("vault", state="ready", restarts=1)
        assert vault["pid"] != before["vault"]
        assert vault["last_exit"] == "killed by SIGKILL"
        assert {name: daemon.child(name)["pid"] for name in CORE[1:]} == {name: before[name] for name in CORE[1:]}


def test_a_stuck_actor_is_killed_and_restarted(home: Path) -> None:
    with stub_daemon(home, orders={"network": "stuck"}, heartbeat=0.2, silence=1.0, tick=0.1) as daemon:
        eventually(lambda: daemon.child("network").get("state") == "ready")
        daemon.order("network", "")
        assert daemon.wait_restarted("network")["last_exit"] == "no heartbeat for 1 s"


def test_an_actor_that_never_gets_ready_is_killed(home: Path) -> None:
    with stub_daemon(home, orders={"gateway": "never ready"}, ready=1.0, tick=0.1) as daemon:
        eventually(lambda: daemon.notes("gateway", "started"))
        daemon.order("gateway", "")
        assert daemon.wait_restarted("gateway")["last_exit"] == "not ready within 1 s"
        daemon.ready()


def test_a_core_actor_in_a_crash_loop_ends_the_daemon(home: Path) -> None:
    with stub_daemon(home, orders={"vault": "crash"}, identities=("alice",)) as daemon:
        code, stderr = daemon.end()
        assert code == 1
        reason = "vault keeps ending (exit code 1: ValueError: as ordered)"
        assert stderr == f"fastn-p2p: {reason}; see {home}/logs. `fastn-p2p daemon` starts it again\n"
        assert len(daemon.notes("vault", "started")) == 6
        assert processes(home) == []
    assert "Traceback" in (home / "logs" / "vault.log").read_text()


def test_an_identity_in_a_crash_loop_is_parked_and_can_be_started_again(home: Path) -> None:
    orders = {"identity-alice": "crash"}
    with stub_daemon(home, orders=orders, identities=("alice", "bob")) as daemon:
        assert "1 identity online, 1 not" in daemon.ready()
        alice = daemon.wait_child("identity-alice", state="failed")
        assert alice["restarts"] == 5
        assert alice["pid"] == 0
        assert "as ordered" in alice["last_exit"]
        assert daemon.child("identity-bob")["state"] == "ready"

        daemon.order("identity-alice", "")
        daemon.order("gateway", "ask start alice")
        signal_if_alive(daemon.child("gateway")["pid"], signal.SIGKILL)
        assert daemon.answer("gateway") == "Ack()"
        daemon.wait_child("identity-alice", state="ready")


def test_starting_an_identity_in_a_crash_loop_gives_the_reason(home: Path) -> None:
    orders = {"gateway": "ask start carol", "identity-carol": "crash"}
    with stub_daemon(home, orders=orders) as daemon:
        daemon.ready()
        answer = daemon.answer("gateway")
        assert "'carol' keeps crashing" in answer or "IdentityFailed(identity='carol'" in answer
        assert "as ordered" in answer


def test_stopping_an_identity_that_does_not_listen(home: Path) -> None:
    orders = {"gateway": "ask stop alice", "identity-alice": "deaf"}
    with stub_daemon(home, orders=orders, identities=("alice",), drain=0.3) as daemon:
        daemon.ready()
        assert daemon.answer("gateway") == "Ack()"
        eventually(lambda: not daemon.child("identity-alice"))
        log = (daemon.home / "logs" / "supervisor.log").read_text()
        assert "identity-alice is stopping" in log


def test_a_reply_reaches_the_requesting_process_and_no_successor(home: Path) -> None:
    orders = {"gateway": "ask start alice", "identity-alice": "crash", "identity-bob": "crash"}
    with stub_daemon(home, orders=orders) as daemon:
        eventually(lambda: len(daemon.notes("identity-alice", "started")) >= 3)
        daemon.order("gateway", "ask start bob")  # its first request has the same number
        signal_if_alive(daemon.child("gateway")["pid"], signal.SIGKILL)
        assert "'bob' keeps crashing" in daemon.answer("gateway")
        daemon.wait_child("identity-alice", state="failed")  # chance decides whose restarts wait for longer


def test_only_the_gateway_may_send_requests(home: Path) -> None:
    orders = {
        "gateway": "ask ensure alice bob",
        "network": "ask start alice",
        "vault": "ask tree",
        "identity-alice": "ask stop bob",
        "identity-bob": "ask tree",
    }
    with stub_daemon(home, orders=orders) as daemon:
        assert daemon.answer("gateway") == "Ack()"
        for name, asked in (
            ("network", "StartIdentity"),
            ("vault", "GetProcesses"),
            ("identity-alice", "StopIdentity"),
        ):
            assert daemon.answer(name) == f"{name} may not send {asked}"
        daemon.wait_child("identity-bob", state="ready")


def test_the_tree_report_lists_every_process(home: Path) -> None:
    with stub_daemon(home, orders={"gateway": "ask tree"}, identities=("alice",)) as daemon:
        answer = daemon.answer("gateway")
        assert re.findall(r"name='([^']+)'", answer) == ["supervisor", *CORE, "identity-alice"]
        assert f"pid={daemon.pid}" in answer


def test_a_name_that_is_no_name_is_refused(home: Path) -> None:
    with stub_daemon(home, orders={"gateway": "ask start ../escape"}) as daemon:
        assert "cannot be the name of an identity" in daemon.answer("gateway")


def test_invalid_message_on_the_channel_ends_only_its_sender(home: Path) -> None:
    faults = {
        "identity-babbler": ("babble", "sent an invalid message"),
        "identity-shouter": ("huge", "packet larger than"),
        "identity-leaver": ("let go", "closed its control channel"),
        "identity-flooder": ("flood", "messages in one tick"),
    }
    names = tuple(name.removeprefix("identity-") for name in faults)
    orders = {name: order for name, (order, _) in faults.items()}
    with stub_daemon(home, orders=orders, identities=names) as daemon:
        daemon.ready()
        for name, (_, expected) in faults.items():
            failed = daemon.wait_child(name, state="failed", within=60)
            assert expected in failed["last_exit"], failed
        assert [daemon.child(name)["restarts"] for name in CORE] == [0, 0, 0]


def test_a_second_daemon_is_refused(home: Path) -> None:
    with stub_daemon(home) as daemon:
        daemon.ready()
        second = subprocess.run(
            [sys.executable, "-m", "tests.support.stub_daemon", home, "{}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert second.returncode == 3
        assert f"a daemon is already running for {home} (pid {daemon.pid})" in second.stderr
        assert daemon.child("vault")["state"] == "ready"


def test_a_service_manager_is_notified_and_children_cannot_notify(home: Path) -> None:
    address = home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "400000"}
        with stub_daemon(home, environment=environment) as daemon:
            heard = ""
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            assert "STATUS=network local, 0 identities online" in heard
            if os.geteuid() == 0:  # nobody else may look
                vault = Path(f"/proc/{daemon.child('vault')['pid']}/environ").read_bytes()
                assert b"NOTIFY_SOCKET" not in vault
            daemon.process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            assert daemon.end()[0] == 0


def test_ctrl_c_stops_and_a_second_one_kills(home: Path) -> None:
    with stub_daemon(home, orders={"vault": "deaf"}) as daemon:
        daemon.ready()
        for pid in processes(home):  # as a terminal does
            signal_if_alive(pid, signal.SIGINT)  # the supervisor, which is first, ends the others meanwhile
        eventually(lambda: daemon.child("vault").get("state") == "stopping")
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.end() == (130, "")
        assert processes(home) == []
