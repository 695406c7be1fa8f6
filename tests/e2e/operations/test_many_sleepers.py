"""Two hundred identities that sleep are reachable after a start. Those that are called wake, and callers take turns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastn_p2p_actors.network.serving.wake_ups import PARALLEL
from fastn_p2p_client.ipc.messages import GetStatus
from tests.benchmarks.sleeping_home import make, name_of
from tests.support.daemons import Daemon, eventually

COUNT = 200
CALLED = 64
ECHOED = {"echoed": "Echo: x"}


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

            answered: list[int] = []

            def call(number: int, caller: int = COUNT - 1) -> object:
                reply = client.call(name_of(caller), name_of(number), "Echo", request={"message": "x"}, timeout=60)
                answered.append(number)
                return reply

            with ThreadPoolExecutor(CALLED) as threads:
                calls = [threads.submit(call, number) for number in range(CALLED)]
                eventually(lambda: answered, "the first is awake")
                before = len(answered)
                assert call(CALLED, COUNT - 2) == ECHOED
                turn = len(answered) - before
                assert [each.result() for each in calls] == [ECHOED] * CALLED
            assert turn <= 3 * PARALLEL, "another caller waits for those that are being woken, not for all"
            assert asleep() == {name_of(number) for number in range(CALLED + 1, COUNT)}
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            eventually(lambda: len(asleep()) == COUNT - CALLED - 1, "those that were asleep are asleep again")
    finally:
        daemon.clean_up()
