"""The clock watch reports jumps and sleep. The tests drive its clocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_actors.credentials import SequenceTracker
from fastn_p2p_actors.network.clock import ClockWatch
from fastn_p2p_client.errors import DelegationExpired, DelegationNotYetValid, RecordReplayed
from tests.support.signer import DAY, NOW, Signer

HOUR = 3600.0


class Clocks:
    """Three clocks that go together until a test sets one."""

    def __init__(self, path: Path) -> None:
        self.wall = float(NOW)
        self.steady = 1000.0
        self.boot = 5000.0
        self.path = path
        self.watch = self.new()

    def new(self) -> ClockWatch:
        return ClockWatch(self.path, lambda: self.wall, steady=lambda: self.steady, boot=lambda: self.boot)

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds
        self.boot += seconds

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path / "time")


def test_reports_nothing_while_the_clocks_agree(clocks: Clocks) -> None:
    for _ in range(100):
        clocks.go_on(HOUR)
        clocks.wall += 0.2  # put right a little, all the time
        assert clocks.watch.check() is None
    assert clocks.watch.warnings() == []


@pytest.mark.parametrize("seconds", [31, -31, 5 * HOUR, -5 * HOUR, -NOW, -NOW - HOUR])
def test_reports_a_clock_that_was_set(clocks: Clocks, seconds: float) -> None:
    clocks.go_on(10)
    clocks.wall += seconds
    jump = clocks.watch.check()
    assert jump is not None
    assert jump.slept == 0
    assert jump.set_by == pytest.approx(seconds)
    assert clocks.watch.check() is None, "once"
    assert clocks.watch.warnings()
    clocks.wall -= seconds
    assert clocks.watch.check() is not None
    clocks.go_on(2 * HOUR)
    assert clocks.watch.check() is None
    assert clocks.watch.warnings() == [], "it was right for long enough"


def test_adds_up_small_steps(clocks: Clocks) -> None:
    looks = []
    for _ in range(5):
        clocks.wall += 10
        looks.append(clocks.watch.check() is not None)
    assert looks == [False, False, False, True, False]


def test_tells_sleep_from_a_clock_that_was_set(clocks: Clocks) -> None:
    """Something is to be renewed, and no clock was wrong."""
    clocks.sleep(DAY)
    jump = clocks.watch.check()
    assert jump is not None
    assert (jump.set_by, jump.slept) == (0, DAY)
    assert clocks.watch.warnings() == []


def test_warns_of_a_clock_behind_the_last_run(clocks: Clocks) -> None:
    clocks.watch.check()
    clocks.wall -= 3 * HOUR
    again = clocks.new()
    assert again.warnings() == [
        "this machine's clock is 3 hours behind the time at which the daemon ran before: "
        "if it is wrong, peers refuse its delegations until it is set"
    ]
    clocks.wall += 3 * HOUR
    again.check()
    assert not any("behind" in warning for warning in again.warnings())


def test_warns_for_a_while_of_delegations_that_are_not_valid_now(clocks: Clocks) -> None:
    clocks.watch.doubt("bob", DelegationNotYetValid(identity="x", seconds=18_000))
    clocks.watch.doubt("carol", DelegationExpired(identity="y", seconds=90))
    assert clocks.watch.warnings() == [
        "bob's delegation starts in 5 hours by this machine's clock: one of the two clocks is wrong",
        "carol's delegation ended 90 seconds ago by this machine's clock: one of the two clocks is wrong",
    ]
    clocks.go_on(700)
    assert clocks.watch.warnings() == []


def test_runs_without_a_disk_that_keeps_the_time(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "nowhere" / "time")
    assert clocks.watch.check() is None


def test_a_sequence_from_the_future_does_not_exclude_present_ones() -> None:
    book, key = SequenceTracker(), Signer().key
    ahead, now = (NOW + 5 * 3600) * 1000, NOW * 1000
    book.observe(key, ahead, b"ahead", now=NOW + 5 * 3600)
    book.observe(key, now, b"now", now=NOW)
    with pytest.raises(RecordReplayed):
        book.observe(key, now - 1, b"earlier", now=NOW)
    book.observe(key, now + 1, b"later", now=NOW)
