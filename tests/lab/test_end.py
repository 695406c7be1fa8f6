"""Clean-up of the laboratory: no process and no namespace outlives a test, also if it is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.lab.lab import Lab
from tests.support.daemons import eventually, is_alive

_ROOT = Path(__file__).resolve().parents[2]
_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
_KILLED_TEST = f"""
import os, signal, sys
from tests.lab.lab import Lab
lab = Lab()
router = lab.router()
host = lab.host("host", router.lan)
programs = [host.popen({_SLEEP!r}, start_new_session=True).pid, router.pid, lab.keeper_pid]
print(host.directory.parent, host.namespace.inode, *programs, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _namespaces() -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.add((process / "ns/net").stat().st_ino)
        except OSError:
            continue
    return found


def test_a_killed_test_leaves_nothing() -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED_TEST], cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    directory, *numbers = killed.stdout.split()
    namespace, *pids = map(int, numbers)
    assert len(pids) == 3
    eventually(lambda: not any(map(is_alive, pids)), f"{pids} are gone")
    assert namespace not in _namespaces()
    eventually(lambda: not Path(directory).exists(), f"{directory} is gone")


def test_programs_end_with_the_laboratory() -> None:
    with Lab() as lab:
        host = lab.host("host", lab.net)
        program = host.popen(_SLEEP)
        inode = host.namespace.inode
        eventually(lambda: inode in _namespaces(), "the program is in the namespace")
    assert not is_alive(program.pid)
    assert inode not in _namespaces()


def test_the_machine_keeps_its_own_network() -> None:
    """Links, addresses and routes of the namespace in which the tests run are the same with a laboratory."""

    def own_network() -> list[str]:
        return [Path("/proc/net", name).read_text() for name in ("route", "if_inet6", "fib_trie")] + sorted(
            line.split(":")[0] for line in Path("/proc/net/dev").read_text().splitlines()
        )

    before = own_network()
    with Lab() as lab:
        router = lab.router()
        host = lab.host("host", router.lan, lab.net)
        host.set_address()
        host.link(False)
        router.reboot_outside_address()
        assert own_network() == before
    assert own_network() == before
