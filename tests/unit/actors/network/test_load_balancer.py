"""Who takes what comes next: the least busy; but calls that take next to nothing stay together."""

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
    """So many requests come; how many each server gets, in the order in which they were added."""
    taken: Counter[Sender] = Counter()
    for _ in range(count):
        server = servers.pick_for_request(now)
        if server is not None:
            server.in_flight += 1
            taken[server.sender] += 1
    return [taken[server.sender] for server in servers]


def answer(servers: LoadBalancer, seconds: float) -> None:
    """All that is in flight is answered, each call after the time that every call before it has taken."""
    for server in servers:
        for done in range(server.in_flight, 0, -1):
            server.in_flight -= 1
            servers.answered(server, seconds * done, 0.0)


def busy(seconds: float, *, count: int = 2, limit: int = LIMIT) -> tuple[LoadBalancer, list[Sender]]:
    """Servers that have taken so many seconds for each of their many calls up to now."""
    servers, senders = several(count, limit=limit)
    for _ in range(100):
        take(servers, 16)
        answer(servers, seconds)
    return servers, senders


def test_requests_are_shared_while_nobody_knows_how_long_they_take() -> None:
    servers, _ = several(3)
    assert take(servers, 9) == [3, 3, 3]


def test_requests_that_take_their_time_are_shared() -> None:
    servers, _ = busy(2 * FAST_CALL)
    assert take(servers, 10) == [5, 5]


def test_requests_that_take_next_to_nothing_go_to_one_until_it_has_clearly_more_to_do() -> None:
    servers, _ = busy(FAST_CALL / 2)
    first = take(servers, 10)
    assert sorted(first) == [0, 10]
    assert take(servers, STICKY_LIMIT - 10)[first.index(10)] == STICKY_LIMIT - 10
    assert sorted(take(servers, STICKY_LIMIT)) == [0, STICKY_LIMIT], "now it is the other one's turn"


def test_sessions_are_always_shared() -> None:
    servers, _ = busy(FAST_CALL / 2)
    for _ in range(10):
        least = servers.least_busy(0.0)
        assert least is not None
        least.in_flight += 1
    assert [server.in_flight for server in servers] == [5, 5]


def test_requests_that_begin_to_take_their_time_are_noticed() -> None:
    servers, _ = busy(FAST_CALL / 2)
    assert sorted(take(servers, 2)) == [0, 2]
    answer(servers, 1.0)
    assert take(servers, 10) == [5, 5]


def test_one_that_does_not_answer_gets_no_more_than_its_share() -> None:
    servers, _ = busy(FAST_CALL / 2)
    hanging = take(servers, 1).index(1)
    for number in range(1, 10):
        taken = take(servers, 1, now=number * 1.0)
        assert not taken[hanging]
        other = next(server for at, server in enumerate(servers) if at != hanging)
        other.in_flight -= 1
        servers.answered(other, FAST_CALL / 2, number * 1.0)


@pytest.mark.parametrize("seconds", [FAST_CALL / 2, FAST_CALL * 2])
def test_nobody_gets_more_than_it_takes(seconds: float) -> None:
    servers, _ = busy(seconds, limit=6)
    assert take(servers, 20) == [6, 6]
    assert servers.pick_for_request(0.0) is None
    assert servers.least_busy(0.0) is None


def test_one_that_is_gone_gets_nothing_more() -> None:
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
    """The deadline of a request passes that the server has had since then."""
    server = list(servers)[at]
    server.in_flight -= 1
    servers.missed(server, since, now)


@pytest.mark.parametrize("seconds", [FAST_CALL / 2, FAST_CALL * 2])
def test_one_that_lets_a_deadline_pass_gets_no_more_but_a_trial(seconds: float) -> None:
    servers, _ = busy(seconds)
    for server in servers:
        server.in_flight += 1
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 50, now=110.0) == [0, 50]
    assert take(servers, 50, now=110.0 + FIRST_TRIAL) == [1, 49]


def test_trials_become_rare_while_it_does_not_answer() -> None:
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


def test_one_that_answers_again_is_like_the_others() -> None:
    servers, senders = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [0, 10]
    answer(servers, FAST_CALL * 2)
    senders[0].answered_at = 111.0
    assert take(servers, 10, now=111.5) == [5, 5]


def test_one_that_has_answered_something_else_meanwhile_keeps_its_share() -> None:
    servers, senders = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    senders[0].answered_at = 105.0
    miss(servers, 0, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [5, 5]


def test_a_deadline_that_nobody_could_have_kept_says_nothing() -> None:
    servers, _ = busy(FAST_CALL * 2)
    next(iter(servers)).in_flight += 1
    miss(servers, 0, 100.0, 100.0 + HANG_AFTER / 2)
    assert take(servers, 10, now=101.0) == [5, 5]


def test_when_all_hang_all_get_requests() -> None:
    servers, _ = busy(FAST_CALL * 2)
    for at, server in enumerate(servers):
        server.in_flight += 1
        miss(servers, at, 100.0, 110.0)
    assert take(servers, 10, now=110.5) == [5, 5]


def test_the_only_one_gets_requests_though_it_hangs() -> None:
    servers, _ = several(1)
    for number in range(5):
        assert take(servers, 1, now=100.0 + number) == [1]
        miss(servers, 0, 100.0 + number, 110.0 + number)


def test_what_is_sent_again_goes_to_one_that_answers() -> None:
    servers, senders = several(3)
    list(servers)[1].in_flight += 1
    miss(servers, 1, 100.0, 110.0)
    found = servers.other_than([senders[0]])
    assert found is not None
    assert found.sender is senders[2]
    found = servers.other_than([senders[0], senders[2]])
    assert found is not None
    assert found.sender is senders[1], "rather than nobody"
