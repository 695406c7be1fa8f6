"""``fastn-p2p status`` tells everything while the daemon is well, and what is wrong while it is not."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec
import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import AddPeer, Status
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.processes import send_signal, signal_if_alive
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons

HI = {"message": "hi"}
T = TypeVar("T")
ACTORS = ("vault", "network", "gateway", "identity-alice")


@pytest.fixture(scope="module")
def busy(daemons: TwoDaemons) -> TwoDaemons:
    """With a peer, a connection and some calls to tell of."""
    with daemons.one.client() as client:
        client.control(AddPeer(daemons.bob, "bob"))
        for _ in range(5):
            client.call("alice", "bob", "Echo", request=HI)
            client.call("alice", daemons.alice, "Echo", request=HI)
        with pytest.raises(Exception, match="MessageTooLong"):
            client.call("alice", daemons.alice, "Echo", "short", {"message": "x" * 11})
    return daemons


@pytest.fixture
def stopped(daemons: TwoDaemons) -> Iterator[Callable[[str], int]]:
    """Stop an actor of ``one`` as the kernel can (SIGSTOP), until the test ends; the actor's pid."""
    pids: list[int] = []

    def stop(actor: str) -> int:
        pids.append(daemons.one.pid(actor))
        send_signal(pids[-1], signal.SIGSTOP)
        return pids[-1]

    yield stop
    for pid in pids:
        signal_if_alive(pid, signal.SIGCONT)


def look_while_stopped(daemons: TwoDaemons, stop: Callable[[str], int], actor: str, look: Callable[[], T]) -> T:
    """Return the result of ``look`` while the actor is stopped. Look again if the supervisor has replaced the actor."""

    def look_once() -> list[T]:
        settled(daemons.one)
        pid = stop(actor)
        result = look()
        return [result] if daemons.one.pid(actor) == pid else []

    return eventually(look_once, f"it is looked at before {actor} is replaced")[0]


def test_json_has_all_of_it(busy: TwoDaemons) -> None:
    settled(busy.one)
    raw = msgspec.json.decode(busy.one.shown_status("--json"))
    assert set(raw) == set(Status.__struct_fields__)
    status = msgspec.convert(raw, Status)
    assert status.home == str(busy.one.home.path)
    assert status.network_mode == "local"
    assert re.fullmatch(r"[0-9a-f]{64}", status.endpoint)
    assert status.addresses
    assert all(address.startswith(("127.0.0.1:", "[::1]:")) for address in status.addresses)
    assert status.uptime_ms > 0
    assert status.clients >= 1
    assert status.warnings == []

    assert [process.name for process in status.processes] == ["supervisor", *ACTORS]
    for process in status.processes:
        assert (process.state, process.restarts) == ("ready", 0)
        assert process.pid > 1
        assert process.uptime_ms > 0
        assert process.memory > 1_000_000

    (alice,) = status.identities
    assert (alice.name, alice.id52, alice.online, alice.wanted) == ("alice", busy.alice, True, True)
    assert alice.delegation_expires_ms is not None
    assert 23 * 3600_000 < alice.delegation_expires_ms <= 24 * 3600_000
    bindings = {(binding.protocol, binding.instance): binding for binding in alice.bindings}
    assert set(bindings) == {("Echo", each) for each in ("default", "short", "large", "private")} | {
        ("Trial", "default")
    }
    default, short = bindings["Echo", "default"], bindings["Echo", "short"]
    assert (default.state, default.access, default.calls, default.errors) == ("serving", ["everyone"], 5, 0)
    assert (short.calls, short.errors) == (1, 1)
    assert bindings["Echo", "private"].access == ["peers"]

    (peer,) = status.peers
    assert (peer.name, peer.id52) == ("bob", busy.bob)
    # A machine that stood still for a second makes further connections, over which nobody has spoken.
    (connection,) = (each for each in status.connections if each.identities)
    assert (connection.outgoing, connection.path, connection.identities) == (True, "direct", ["bob"])
    assert connection.sent > 100
    assert connection.received > 100


def test_people_see_the_same(busy: TwoDaemons) -> None:
    shown = busy.one.shown_status()
    for expected in (*ACTORS, "supervisor", busy.alice, "private", "peers", "bob", "direct"):
        assert expected in shown
    assert "\x1b" not in shown
    assert "Warnings" not in shown


@pytest.mark.parametrize("actor", ACTORS)
def test_an_actor_that_was_killed_is_back_and_counted(busy: TwoDaemons, actor: str) -> None:
    before = busy.one.kill_actor(actor)
    after = busy.one.wait_actor(actor, not_pid=before)
    process = next(each for each in settled(busy.one).processes if each.name == actor)
    assert (process.pid, process.state, process.restarts) == (after, "ready", 1)
    with busy.two.client() as client:
        assert client.call("bob", busy.alice, "Echo", request=HI, timeout=60) == {"echoed": "Echo: hi"}


def settled(daemon: Daemon) -> Status:
    """The status once there is nothing to warn of."""

    def look() -> Status | None:
        status = daemon.status()
        return None if status.warnings or not all(identity.online for identity in status.identities) else status

    found = eventually(look, "there is nothing to warn of")
    assert found is not None
    return found


def test_a_network_that_hangs_is_a_warning(busy: TwoDaemons, stopped: Callable[[str], int]) -> None:
    """The status still has all other parts, also the identities and bindings on disk."""
    done = look_while_stopped(busy, stopped, "network", lambda: busy.one.cli("status"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "the network process is not answering" in done.stdout
    assert busy.alice in done.stdout
    assert "Echo" in done.stdout


def test_an_identity_that_hangs_hides_nothing(busy: TwoDaemons, stopped: Callable[[str], int]) -> None:
    done = look_while_stopped(busy, stopped, "identity-alice", lambda: busy.one.cli("status"))
    assert (done.returncode, done.stderr) == (0, "")
    assert busy.alice in done.stdout


def test_a_gateway_that_hangs_leaves_the_processes(busy: TwoDaemons, stopped: Callable[[str], int]) -> None:
    """The status shows the processes. The message and the exit code say that it is incomplete."""

    def look() -> tuple[dict[str, int], list[subprocess.CompletedProcess[str]]]:
        pids = {actor: busy.one.pid(actor) for actor in ACTORS}
        with ThreadPoolExecutor() as threads:  # at the same time: the supervisor replaces a process that hangs
            asked = [threads.submit(busy.one.cli, "status", *options) for options in ((), ("--json",))]
            return pids, [each.result() for each in asked]

    pids, (done, partial) = look_while_stopped(busy, stopped, "gateway", look)
    assert (done.returncode, done.stderr) == (ExitCode.DAEMON, "")
    assert "the gateway does not answer" in done.stdout
    for actor in ACTORS:
        assert re.search(rf"{actor} +ready +{pids[actor]}", done.stdout)
    assert partial.returncode == ExitCode.DAEMON
    assert "the gateway does not answer" in msgspec.json.decode(partial.stdout, type=Status).warnings[0]


def test_watching_in_a_terminal_ends_with_control_c(busy: TwoDaemons) -> None:
    """The status is redrawn in place every second, and the terminal is restored at the end."""
    settled(busy.one)
    leader, terminal = os.openpty()
    env = {**busy.one.env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "60"}
    process = subprocess.Popen([*CLI, "status", "--watch"], env=env, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""

    def refreshes() -> int:
        nonlocal shown
        with suppress(OSError):  # nobody writes any more
            while select.select([leader], [], [], 0)[0]:
                shown += os.read(leader, 65536)
        return len(set(re.findall(rb"up (?:\x1b\[[0-9;]*m)*([0-9.]+ \w+)", shown)))

    eventually(lambda: refreshes() >= 3, "it was drawn three times")
    process.send_signal(signal.SIGINT)
    eventually(lambda: refreshes() and process.poll() is not None, "it has ended")
    assert process.returncode == ExitCode.INTERRUPTED
    refreshes()
    os.close(leader)
    assert b"Traceback" not in shown
    assert busy.alice[:8].encode() in shown
    assert shown.count(b"\x1b[?25h") == shown.count(b"\x1b[?25l") == 1  # the cursor is back


@pytest.mark.parametrize("end", ["q", "\x03"])
def test_watching_on_a_small_terminal_scrolls(busy: TwoDaemons, end: str) -> None:
    """Keys scroll, the size may change, and the terminal is as it was at the end."""
    settled(busy.one)
    with on_terminal(busy.one.env, "status", "--watch", rows=12, columns=40) as tty:
        tty.until(lambda rows: rows[0].startswith("fastn-p2p") and rows[-1].startswith("lines 1-11 of"), "the top")
        assert not any("Connections" in row for row in tty.rows)
        tty.type("G")
        tty.until(lambda rows: any("Connections" in row for row in rows), "the end")
        tty.type("\x1b[H")
        tty.until(lambda rows: rows[0].startswith("fastn-p2p"), "the top again")
        tty.type("\x1b[B")
        tty.until(lambda rows: rows[-1].startswith("lines 2-12 of"), "a line further")
        tty.resize(200, 120)
        tty.until(lambda rows: any(row.startswith("Connections") for row in rows) and "lines" not in rows[-1], "all")
        tty.type(end)
        assert tty.ends() == (ExitCode.OK if end == "q" else ExitCode.INTERRUPTED)
        assert tty.raw.count(b"\x1b[?1049h") == tty.raw.count(b"\x1b[?1049l") == 1
        assert b"Traceback" not in tty.raw


def test_an_unreachable_peer_is_marked(busy: TwoDaemons) -> None:
    with busy.one.client() as client:
        client.control(AddPeer(busy.bob, "bob"))
        client.call("alice", "bob", "Echo", request={"message": "x"})
    settled(busy.one)
    (peer,) = (each for each in busy.one.status().peers if each.name == "bob")
    assert peer.reach == "connected"
    assert peer.seen_ms > 1_700_000_000_000


def test_watching_into_a_pipe_ends_with_its_reader(busy: TwoDaemons) -> None:
    process = subprocess.Popen(
        [*CLI, "status", "--watch", "--json"], env=busy.one.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert [msgspec.json.decode(line, type=Status).home for line in lines] == [str(busy.one.home.path)] * 2
    process.stdout.close()
    assert process.wait(60) == ExitCode.PIPE
    assert process.stderr.read() == b""
    process.stderr.close()


def test_status_waits_for_no_timer(busy: TwoDaemons) -> None:
    """Inside the daemon: one that takes less than a second shows that no part of it does."""
    settled(busy.one)

    def seconds() -> float:
        began = time.monotonic()
        busy.one.status()
        return time.monotonic() - began

    eventually(lambda: seconds() < 0.9, "one is as fast as the machine lets it be")
