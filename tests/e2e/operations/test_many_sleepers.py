"""Two hundred identities that are asleep: all are reachable after a start, and only those that are called wake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastn_p2p_client.ipc.messages import GetStatus
from tests.benchmarks.sleeping_home import make, name_of
from tests.support.daemons import Daemon, eventually

COUNT = 200
CALLED = 24


@pytest.mark.lab_long
def test_those_that_are_called_wake(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    make(daemon.home.path, COUNT)
    try:
        daemon.start()
        with daemon.client() as client:

            def asleep() -> set[str]:
                identities = client.control(GetStatus()).status.identities
                return {each.name for each in identities if each.asleep and each.online}

            eventually(lambda: len(asleep()) == COUNT, "all are asleep")
            assert not any(name.startswith("identity-") for name in daemon.processes())

            def call(number: int) -> object:
                return client.call(name_of(COUNT - 1), name_of(number), "Echo", request={"message": "x"}, timeout=60)

            with ThreadPoolExecutor(CALLED) as threads:
                assert list(threads.map(call, range(CALLED))) == [{"echoed": "Echo: x"}] * CALLED
            assert asleep() == {name_of(number) for number in range(CALLED, COUNT)}
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            eventually(lambda: len(asleep()) == COUNT - CALLED, "those that were asleep are asleep again")
    finally:
        daemon.clean_up()
