"""A laptop that slept: its clocks have jumped, its connections are dead, and perhaps it wakes in another network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.lab.lab import Lab
from tests.lab.test_roaming import RoamingHosts, measure, start_hosts
from tests.support.replicas import freeze, thaw

_NIGHT: Final = 14 * 3600.0
"""Seconds. More than half of the time for which delegations are valid, so that they must be renewed."""
_SITE: Final = """
import pathlib, time
folder = pathlib.Path({folder!r})
wall, clock = time.time, time.clock_gettime

def shift(name):
    try:
        return float((folder / name).read_text())
    except (OSError, ValueError):
        return 0.0

time.time = lambda: wall() + shift("wall")
time.clock_gettime = lambda which: clock(which) + (shift("slept") if which == time.CLOCK_BOOTTIME else 0.0)
"""
"""Runs at the start of each of the daemon's processes: adds to the clocks what the files say."""


class _Clocks:
    """Clocks of a daemon that a test sets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.site = folder / "site"
        self.site.mkdir(parents=True)
        (self.site / "sitecustomize.py").write_text(_SITE.format(folder=str(folder)))

    def set(self, name: str, seconds: float) -> None:
        new = self._folder / f"{name}.new"
        new.write_text(str(seconds))
        new.replace(self._folder / name)


@contextmanager
def _sleeping_hosts(folder: Path) -> Iterator[tuple[RoamingHosts, list[_Clocks]]]:
    clocks = [_Clocks(folder / name) for name in ("caller", "callee")]
    with Lab() as lab, start_hosts(lab, relay=True, sites=[each.site for each in clocks]) as hosts:
        yield hosts, clocks


@pytest.mark.lab_long
@pytest.mark.parametrize("wakes_in", ["the same network", "another network"])
@pytest.mark.timeout(180)
def test_a_laptop_wakes_after_a_night(tmp_path: Path, wakes_in: str) -> None:
    """The delegations of the daemon must be renewed, and so must be those that it knows of its peer. Retried calls go
    on."""
    with _sleeping_hosts(tmp_path) as (hosts, (caller, callee)):
        hosts.settle()
        with hosts.calls() as load:
            freeze(hosts.caller)
            try:
                for clocks in (caller, callee):
                    clocks.set("wall", _NIGHT)
                caller.set("slept", _NIGHT)
                time.sleep(3)
                if wakes_in == "another network":
                    hosts.alice.move(hosts.lab.net, ipv6=False)
            finally:
                thaw(hosts.caller)
            measure(load, f"slept for a night, woken in {wakes_in}")
        log = (hosts.caller.home.logs / "network.log").read_text()
        assert "delegation of alice renewed" in log
        assert not any("clock was set" in warning for warning in hosts.caller.status().warnings), "it slept"
