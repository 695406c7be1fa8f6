"""A process that hangs: calls end at their deadlines, and it wakes up or is replaced."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.daemons import eventually
from tests.support.processes import send_signal, signal_if_alive

from .conftest import Daemons, StartLoad
from .load import Load

TIMEOUT = 1.5


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    send_signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_if_alive(pid, signal.SIGCONT)


def wait_for_deadlines(load: Load) -> None:
    """Every caller has waited for as long as it wanted to."""
    wanted = load.order.callers
    eventually(
        lambda: load.read_statistics() and load.failures.get("DeadlineExceeded", 0) >= wanted,
        "deadlines pass",
        interval=0.05,
    )


@pytest.mark.parametrize(("side", "actor"), [("alice", "network"), ("bob", "network"), ("bob", "identity-bob")])
def test_calls_end_by_their_deadline_while_a_process_hangs(
    side: str, actor: str, daemons: Daemons, start_load: StartLoad
) -> None:
    daemon = daemons.side(side)
    load = start_load(timeout=TIMEOUT)
    load.mark()
    pid = daemon.pid(actor)
    with frozen(pid):
        began = time.monotonic()
        wait_for_deadlines(load)
        hung = time.monotonic() - began
    load.assert_calls_succeed()
    print(
        f"{side}'s {actor} hung: {load.failures}, the slowest call took {load.statistics.slowest:.3f} s of {TIMEOUT} s"
    )
    if daemon.pid(actor) != pid:  # on a machine so slow that it hung for longer than the supervisor allows
        assert daemon.processes()[actor]["last_exit"].startswith("no heartbeat")
    elif hung < 2 * TIMEOUT:  # otherwise peers may have given its connections up
        assert load.failures.keys() == {"DeadlineExceeded"}
    load.stop()


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_a_network_process_that_hangs_is_replaced(side: str, daemons: Daemons, start_load: StartLoad) -> None:
    daemon = daemons.side(side)
    load = start_load(timeout=TIMEOUT)
    load.mark()
    pid = daemon.pid("network")
    daemon.remember()
    send_signal(pid, signal.SIGSTOP)
    daemon.wait_actor("network", not_pid=pid)
    load.assert_calls_succeed()
    assert daemon.processes()["network"]["last_exit"].startswith("no heartbeat")
    print(f"{side}'s network hung until it was replaced: {load.failures}")
    load.stop()
