"""Checks of ``doctor``: what the kernel, the limits and the disk show becomes a state and a remedy."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli.doctor.home_directory import check_disk, check_home, check_sockets
from fastn_p2p.cli.doctor.kernel import check_kernel
from fastn_p2p.cli.doctor.machine_limits import check_limits
from fastn_p2p.cli.doctor.software import TESTED, check_software
from fastn_p2p.cli.netcheck.check import Check
from fastn_p2p_client.home import Home
from tests.docs.tables import ROOT
from tests.support.stub_actors import temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


def states(checks: Iterable[Check]) -> dict[str, str]:
    """Return the state of each check by name. Whatever is wrong has a remedy."""
    found = list(checks)
    assert all(each.text for each in found)
    assert all(each.advice for each in found if each.state in ("warning", "problem"))
    return {each.name: each.state for each in found}


# ── home ─────────────────────────────────────────────────────────────────────────────────────────


def test_home_and_keys_that_others_can_get_at(home: Home) -> None:
    key = home.vault / "transport.key"
    key.touch(0o600)
    assert states(check_home(home)) == {"home": "ok", "secrets": "ok"}
    key.chmod(0o640)
    assert states(check_home(home)) == {"home": "ok", "secrets": "problem"}
    home.path.chmod(0o777)
    assert states(check_home(home)) == {"home": "problem"}
    assert states(check_home(Home(home.path / "missing" / "home"))) == {"home": "problem"}


def test_sockets_of_a_daemon_that_does_not_run_are_not_missed(home: Home) -> None:
    assert states(check_sockets(home)) == {}


def test_disk(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 0:1 / / rw - ext4 /dev/root rw\n3 1 0:2 / {home.path} rw shared:1 - nfs4 server:/ rw\n")

    def with_free(mebibytes: int) -> dict[str, str]:
        blocks = mebibytes * 256
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 2**24, blocks, blocks, *[99] * 5)))
        return states(check_disk(home, mounts))

    assert with_free(100) == {"disk": "problem", "file system": "warning"}
    assert with_free(600) == {"disk": "warning", "file system": "warning"}
    assert with_free(60_000) == {"disk": "ok", "file system": "warning"}
    mounts.write_text("1 2 0:1 / / rw - ext4 /dev/root rw\n")
    assert with_free(60_000) == {"disk": "ok"}


# ── limits ───────────────────────────────────────────────────────────────────────────────────────

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             {processes}          {processes}          processes
Max open files            256                  {files}              files
Max locked memory         {locked}             {locked}             bytes
Max address space         unlimited            {space}              bytes
"""


class Machine:
    """Files of ``/proc`` and ``/sys/fs/cgroup``."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        own = self.proc / str(os.getpid())
        for directory in (own, self.proc / "sys/net/core", self.proc / "net", self.cgroups / "a/b"):
            directory.mkdir(parents=True)
        (own / "cgroup").write_text("0::/a/b\n")
        self.write()

    def write(
        self,
        *,
        processes: str = "unlimited",
        files: str = "65536",
        locked: str = "8388608",
        space: str = "unlimited",
        tasks: str = "max",
        memory: str = "max",
        available: int = 4_000_000,
        buffer: int = 212_992,
        lost: int = 0,
    ) -> None:
        own = self.proc / str(os.getpid())
        text = LIMITS.format(processes=processes, files=files, locked=locked, space=space)
        (own / "limits").write_text(text)
        (self.cgroups / "a/pids.max").write_text(f"{tasks}\n")
        (self.cgroups / "a/b/memory.max").write_text(f"{memory}\n")
        (self.proc / "meminfo").write_text(f"MemTotal:  8000000 kB\nMemAvailable: {available} kB\n")
        (self.proc / "sys/net/core/rmem_max").write_text(f"{buffer}\n")
        (self.proc / "net/snmp").write_text(f"Udp: InDatagrams RcvbufErrors\nUdp: 7 {lost}\nUdpLite: a\nUdpLite: 0\n")

    def problems(self, home: Home) -> dict[str, str]:
        found = states(check_limits(home, self.proc, self.cgroups))
        return {name: state for name, state in found.items() if state != "ok"}


def test_limits(home: Home, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.problems(home) == {}
    changes: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
        ({"files": "1024"}, {"files": "warning"}),
        ({"files": "256"}, {"files": "problem"}),
        ({"processes": "20"}, {"processes": "warning"}),
        ({"tasks": "20"}, {"processes": "warning"}),
        ({"locked": "4096"}, {"locked memory": "warning"}),
        ({"space": "100000000"}, {"address space": "problem"}),
        ({"memory": "200000000", "available": 100_000}, {"memory": "warning"}),
        ({"lost": 3}, {"UDP buffers": "warning"}),
        ({"lost": 3, "buffer": 2**23}, {}),
    )
    for change, expected in changes:
        machine.write(**change)
        assert machine.problems(home) == expected, change
    (machine.proc / str(os.getpid()) / "limits").unlink()
    assert "unknown" in states(check_limits(home, machine.proc, machine.cgroups)).values()


# ── kernel ───────────────────────────────────────────────────────────────────────────────────────


def test_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p.cli.doctor.kernel.seccomp.is_supported", lambda: True)
    for version, expected in ((0, "warning"), (4, "warning"), (6, "ok")):
        monkeypatch.setattr("fastn_p2p.cli.doctor.kernel.landlock.version", partial(int, version))
        assert states(check_kernel(sandbox=True))["sandbox"] == expected
    assert states(check_kernel(sandbox=False))["sandbox"] == "off"
    for state, expected in ((0, "ok"), (5, "warning"), (-1, "unknown")):
        assert states(check_kernel(sandbox=True, clock_state=partial(int, state)))["time"] == expected
    assert "kernel" in states(check_kernel(sandbox=True, release="strange"))


# ── software ─────────────────────────────────────────────────────────────────────────────────────


def test_tested_versions_are_those_of_the_requirements() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {found[0] for each in project["dependencies"] if (found := re.match(r"[\w-]+", each))}
    assert set(TESTED) == named - {"fastn-p2p-client"}
    by_name = {name.replace("_", "-"): pin for name, pin in pins.items()}
    assert {name: by_name[name.replace("_", "-")] for name in TESTED} == TESTED


def test_libraries(home: Home) -> None:
    def check(version_of: Callable[[str], str]) -> str:
        return states(check_software(home, version_of))["libraries"]

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    assert check(lambda name: TESTED.get(name, "1")) == "ok"
    assert check(lambda name: "99" if name == "rich" else TESTED.get(name, "1")) == "warning"
    assert check(lambda name: "99" if name == "iroh" else TESTED.get(name, "1")) == "problem"
    assert check(missing) == "problem"
