"""No process outlives the supervisor, and the daemon survives the end of the fork server."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.stub_daemon import eventually, processes, seconds_until_gone, short_path, stub_daemon

GENEROUS = 30.0
"""Seconds; it is some milliseconds on an idle machine, and 100 ms is what is promised."""


@pytest.fixture
def home() -> Iterator[Path]:
    with short_path() as path:
        yield path


def test_every_process_goes_when_the_supervisor_is_killed(home: Path) -> None:
    orders = {"network": "stuck", "identity-alice": "stuck", "identity-bob": "deaf"}
    with stub_daemon(home, orders=orders, identities=("alice", "bob", "carol")) as daemon:
        daemon.ready()
        everyone = processes(home)
        assert len(everyone) == 1 + 1 + 3 + 3
        assert seconds_until_gone(everyone, daemon.process.kill) < GENEROUS
        assert processes(home) == []


def test_every_process_goes_when_the_supervisor_is_killed_while_it_starts(home: Path) -> None:
    with stub_daemon(home, identities=tuple(f"i{number}" for number in range(20))) as daemon:
        eventually(lambda: daemon.notes("identity-i0", "started"))
        daemon.process.kill()
        daemon.process.wait()
        eventually(lambda: not processes(home), within=GENEROUS)


def test_a_daemon_starts_after_one_that_was_killed(home: Path) -> None:
    with stub_daemon(home) as daemon:
        daemon.ready()
        assert list((home / "run").glob("listener-*"))
        daemon.process.kill()
        daemon.process.wait()
        with stub_daemon(home) as successor:
            successor.ready()
            assert len(list((home / "run").glob("listener-*"))) == 1
            successor.process.send_signal(signal.SIGTERM)
            assert successor.end()[0] == 0


def test_the_fork_server_can_die(home: Path) -> None:
    with stub_daemon(home, identities=("alice",)) as daemon:
        daemon.ready()
        before = [child["pid"] for child in daemon.process_file()["processes"]]
        fork_server = parent(before[0])
        assert {parent(pid) for pid in before} == {fork_server}
        assert seconds_until_gone([fork_server, *before], lambda: os.kill(fork_server, signal.SIGKILL)) < GENEROUS
        for name in ("vault", "network", "gateway", "identity-alice"):
            child = daemon.wait_child(name, state="ready", restarts=1)
            assert child["last_exit"] == "killed together with the fork server"
        after = [child["pid"] for child in daemon.process_file()["processes"]]
        assert set(before).isdisjoint(after)
        assert len(processes(home)) == 1 + 1 + 4


def test_a_fork_server_that_keeps_dying_ends_the_daemon(home: Path) -> None:
    with stub_daemon(home) as daemon:
        daemon.ready()
        killed: set[int] = set()

        def kill_the_next() -> bool:
            """Kill the fork server again. How many restarts are allowed in which time is tested without processes."""
            vault = daemon.child("vault")
            if vault.get("state") == "ready" and vault["pid"] not in killed:
                with suppress(FileNotFoundError, ProcessLookupError):
                    fork_server = parent(vault["pid"])
                    if fork_server != daemon.process.pid:  # which adopts children of one that was killed
                        os.kill(fork_server, signal.SIGKILL)
                        killed.add(vault["pid"])
            return daemon.process.poll() is not None

        eventually(kill_the_next)
        code, stderr = daemon.end()
        assert code == 1
        assert "the fork server keeps dying" in stderr
        assert len(killed) > 1


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
