"""Choice of the process that takes the next call: the least busy one, or the same again for fast calls."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, Final, cast

import pytest

from fastn_p2p_actors.network.serving.load_balancer import (
    FAST_CALL,
    FIRST_TRIAL,
    HANG_AFTER,
    LONGEST_TRIAL,
    STICKY_LIMIT,
    LoadBalancer,
    ServingProcess,
)
from fastn_p2p_actors.runtime.mailbox import Sender

LIMIT: Final = 1000


def several(count: int = 2, *, limit: int = LIMIT) -> tuple[LoadBalancer, list[Sender]]:
    servers = LoadBalancer()
    senders = [Sender(0, number) for number in range(count)]
    for sender in senders:
        servers.add(ServingProcess(cast(Any, None), sender, limit, hosted=False))
    return servers, senders


def take(servers: LoadBalancer, count: int, now: float = 0.0) -> list[int]:
    """Distribute requests. Return the number that each process gets, in the order in which they were added."""
    taken: Counter[Sender] = Counter()
    for _ in range(count):
        server = servers.pick_for_request(now)
        if server is not None:
            server.in_flight += 1
            taken[server.sender] += 1
    return [taken[server.sender] for server in servers]


def answer(servers: LoadBalancer, seconds: float) -> None:
    """Answer all calls in flight, one after the other."""
    for server in servers:
        for done in range(server.in_flight, 0, -1):
            server.in_flight -= 1
            servers.answered(server, seconds * done, 0.0)


def busy(seconds: float, *, count: int = 2, limit: int = LIMIT) -> tuple[LoadBalancer, list[Sender]]:
    """Return processes that have taken so many seconds for each of many calls."""
    servers, senders = several(count, limit=limit)
    for _ in range(100):
        take(servers, 16)
        answer(servers, seconds)
    return servers, senders


def test_shares_calls_of_unknown_duration() -> None:
    servers, _ = several(3)
    assert take(servers, 9) == [3, 3, 3]


def test_shares_slow_calls() -> None:
    servers, _ = busy(2 * FAST_CALL)
    assert take(servers, 10) == [5, 5]


def test_sends_fast_calls_to_one_process_up_to_a_limit() -> None:
    servers, _ = busy(FAST_CALL / 2)
    first = take(servers, 10)
    assert sorted(first) == [0, 10]
    assert take(servers, STICKY_LIMIT - 10)[first.index(10)] == STICKY_LIMIT - 10
    assert sorted(take(servers, STICKY_LIMIT)) == [0, STICKY_LIMIT], "now it is the other one's turn"


def test_always_shares_sessions() -> None:
    servers, _ = busy(FAST_CALL / 2)
    for _ in range(10):
        least = servers.least_busy(0.0)
        assert least is not None
        least.in_flight += 1
    assert [server.in_flight for server in servers] == [5, 5]


def test_notices_calls_that_become_slow() -> None:
    servers, _ = busy(FAST_CALL / 2)
    assert sorted(take(servers, 2)) == [0, 2]
    answer(servers, 1.0)
    assert take(servers, 10) == [5, 5]


def test_sends_no_more_than_its_share_to_a_silent_process() -> None:
    servers, _ = busy(FAST_CALL / 2)
    hanging = take(servers, 1).index(1)
    for number in range(1, 10):
        taken = take(servers, 1, now=number * 1.0)
        assert not taken[hanging]
        other = next(server for at, server in enumerate(servers) if at != hanging)
        other.in_flight -= 1
        servers.answered(other, FAST_CALL / 2, number * 1.0)


@pytest.mark.parametrize("seconds", [FAST_CALL / 2, FAST_CALL * 2])
def test_respects_the_limit_of_each_process(seconds: float) -> None:
    servers, _ = busy(seconds, limit=6)
    assert take(servers, 20) == [6, 6]
    assert servers.pick_for_request(0.0) is None
    assert servers.least_busy(0.0) is None


def test_sends_nothing_to_a_process_that_was_removed() -> None:
    servers, senders = busy(FAST_CALL / 2)
    taken = take(servers, 3)
    gone = senders[taken.index(3)]
    servers.remove(gone)
    assert take(servers, 3) == [3]
    assert servers.of(gone) is None
    assert servers.other_than([sender for sender in senders if sender is not gone]) is None
    servers.clear()
    assert servers.pick_for_request(0.0) is None


# ── servers that hang ────────────────────────────────────────────────────────────────────────────


def miss(servers: LoadBalancer, at: int, since: float, now: float) -> None:
    """Let the deadline of a request pass that the process has had since then."""
    server = list(servers)[at]
    server.in_flight -= 1
    servers.missed(server, since, now)


@pytest.mark.parametrize("seconds", [FAST_CALL / 2, FAST_CALL * 2])
def test_sends_only_trials_to_a_doubtful_process(seconds: float) -> None:
    servers, _ = busy(seconds)
    for server in servers:
        server.in_flight += 1
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 50, now=110.0) == [0, 50]
    assert take(servers, 50, now=110.0 + FIRST_TRIAL) == [1, 49]


def test_doubles_the_pause_between_trials() -> None:
    servers, _ = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    miss(servers, 0, 100.0, 110.0)
    now, tried = 110.0, []
    while now < 800:
        if take(servers, 3, now=now)[0]:
            tried.append(now)
            miss(servers, 0, now, now + 5)
        now += 0.5
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 10
    assert pauses[-1] >= LONGEST_TRIAL
    assert len(tried) < 20


def test_ends_the_doubt_after_an_answer() -> None:
    servers, senders = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [0, 10]
    answer(servers, FAST_CALL * 2)
    senders[0].answered_at = 111.0
    assert take(servers, 10, now=111.5) == [5, 5]


def test_does_not_doubt_a_process_that_answers_other_requests() -> None:
    servers, senders = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    senders[0].answered_at = 105.0
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [5, 5]


def test_ignores_deadlines_that_are_too_short() -> None:
    servers, _ = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    miss(servers, 0, 100.0, 100.0 + HANG_AFTER / 2)
    assert take(servers, 10, now=101.0) == [5, 5]


def test_shares_among_all_if_all_are_doubtful() -> None:
    servers, _ = busy(FAST_CALL * 2)
    for at, server in enumerate(servers):
        server.in_flight += 1
        miss(servers, at, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [5, 5]


def test_sends_to_the_only_process_even_if_it_is_doubtful() -> None:
    servers, _ = several(1)
    for number in range(5):
        assert take(servers, 1, now=100.0 + number) == [1]
        miss(servers, 0, 100.0 + number, 110.0 + number)


def test_sends_retries_to_a_process_that_answers() -> None:
    servers, senders = several(3)
    list(servers)[1].in_flight += 1
    miss(servers, 1, 100.0, 110.0)
    found = servers.other_than([senders[0]])
    assert found is not None
    assert found.sender is senders[2]
    found = servers.other_than([senders[0], senders[2]])
    assert found is not None
    assert found.sender is senders[1], "rather than nobody"
