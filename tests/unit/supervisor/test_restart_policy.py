"""Restart policy with a fixed clock and jitter."""

from collections.abc import Callable

import pytest

from fastn_p2p_supervisor.restart_policy import CORE, IDENTITY, RestartHistory, RestartRule, Timeouts


def constantly(number: float) -> Callable[[], float]:
    return lambda: number


def test_core_is_restarted_at_once_five_times_in_ten_seconds() -> None:
    history = RestartHistory(CORE, constantly(0.5))
    assert [history.record_exit(float(second)) for second in range(5)] == [0.0] * 5
    assert history.record_exit(5.0) is None


def test_restarts_older_than_the_period_are_forgotten() -> None:
    history = RestartHistory(CORE, constantly(0.5))
    for second in range(5):
        history.record_exit(float(second))
    assert history.record_exit(10.0) == 0.0  # the one at 0 no longer counts
    assert history.record_exit(10.5) is None


def test_a_slow_crash_loop_goes_on_for_ever() -> None:
    history = RestartHistory(CORE, constantly(0.5))
    assert all(history.record_exit(second * 2.1) == 0.0 for second in range(100))


def test_processes_that_never_get_ready_are_given_up_however_slowly_they_end() -> None:
    history = RestartHistory(CORE, constantly(0.5))
    assert [history.record_exit(number * 15.0, was_ready=False) for number in range(6)] == [0.0] * 5 + [None]


def test_a_child_that_was_ready_begins_afresh() -> None:
    history = RestartHistory(CORE, constantly(0.5))
    for number in range(5):
        history.record_exit(number * 15.0, was_ready=False)
    assert history.record_exit(75.0) == 0.0
    assert [history.record_exit(90.0 + number * 15.0, was_ready=False) for number in range(6)] == [0.0] * 5 + [None]


def test_identity_backs_off_after_the_first_restart() -> None:
    history = RestartHistory(IDENTITY, constantly(0.0))
    assert [history.record_exit(0.0) for _ in range(6)] == [0.0, 0.1, 0.2, 0.4, 0.8, None]


def test_jitter_takes_away_up_to_one_half() -> None:
    delays = []
    for jitter in (0.0, 0.5, 0.999999):
        history = RestartHistory(IDENTITY, constantly(jitter))
        history.record_exit(0.0)
        delays.append(history.record_exit(0.0))
    assert delays == pytest.approx([0.1, 0.075, 0.05], rel=1e-4)


def test_backoff_has_a_longest() -> None:
    history = RestartHistory(RestartRule(intensity=100, backoff=1.0, longest=3.0), constantly(0.0))
    assert [history.record_exit(0.0) for _ in range(5)] == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_a_restart_counts_from_when_it_happens() -> None:
    history = RestartHistory(RestartRule(intensity=2, period=10.0, backoff=8.0, longest=8.0), constantly(0.0))
    assert history.record_exit(0.0) == 0.0
    assert history.record_exit(1.0) == 8.0  # happens at 9
    assert history.record_exit(11.0) == 8.0
    assert history.record_exit(18.9) is None


def test_forgetting_begins_afresh() -> None:
    history = RestartHistory(IDENTITY, constantly(0.0))
    while history.record_exit(0.0) is not None:
        pass
    history.reset()
    assert history.record_exit(0.0) == 0.0


def test_five_missing_heartbeats_but_at_least_five_seconds() -> None:
    assert Timeouts().silence_of(1.0) == 5.0
    assert Timeouts().silence_of(0.1) == 5.0
    assert Timeouts().silence_of(5.0) == 25.0
