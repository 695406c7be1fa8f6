"""One process is killed under load: it is noticed, it is replaced, and no call hears a lie about it."""

from __future__ import annotations

import re
import time
from datetime import datetime

import pytest

from tests.harness import Daemon, is_alive

from .conftest import Couple, StartLoad

KILLS = [
    ("alice", "vault"),
    ("alice", "network"),
    ("alice", "gateway"),
    ("alice", "identity-alice"),
    ("bob", "vault"),
    ("bob", "network"),
    ("bob", "gateway"),
    ("bob", "identity-bob"),
]


@pytest.mark.parametrize(("side", "actor"), KILLS)
def test_kill(side: str, actor: str, couple: Couple, start_load: StartLoad) -> None:
    daemon: Daemon = getattr(couple, side)
    load = start_load()
    load.mark()
    killed = time.time()
    pid = daemon.kill_actor(actor)
    successor = daemon.wait_actor(actor, not_pid=pid)
    account = load.goes_well()
    failures = dict(load.failures())
    print(f"\n{side}: {actor}: {failures}")
    if failures:
        print(f" calls failed from {account.first_failure-killed:.3f} to {account.last_failure-killed:.3f}; slowest {account.slowest}")
    print(account.examples)
    for l in (daemon.home.logs/"supervisor.log").read_text().splitlines()[-3:]: print(l, datetime.utcfromtimestamp(killed).isoformat())
    load.stop()
    print((couple.bob.home.logs/"network.log").read_text(),"ALICE", (couple.alice.home.logs/"network.log").read_text())
