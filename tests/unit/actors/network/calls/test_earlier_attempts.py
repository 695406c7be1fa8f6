"""Daemons that may have executed retried calls, with a clock that the test sets."""

from __future__ import annotations

from fastn_p2p_actors.network.calls import earlier_attempts
from fastn_p2p_actors.network.calls.earlier_attempts import THIS_DAEMON, EarlierAttempt, EarlierAttempts

BOB, CAROL = b"b" * 32, b"c" * 32
FIRST, SECOND = (EarlierAttempt(name * 32, b"start") for name in (b"1", b"2"))
HERE = EarlierAttempt(THIS_DAEMON, b"")


def test_the_daemon_that_got_a_call_first_is_remembered_until_the_deadline() -> None:
    now = 0.0
    attempts = EarlierAttempts(lambda: now)
    attempts.note(BOB, b"id", FIRST, 10)
    attempts.note(BOB, b"id", SECOND, 10)
    assert attempts.find(BOB, b"id") == FIRST
    assert attempts.find(CAROL, b"id") is None
    assert attempts.find(BOB, b"other") is None
    attempts.note(BOB, b"id", SECOND, 10, replace=True)
    assert attempts.find(BOB, b"id") == SECOND
    now = 11.0
    attempts.note(BOB, b"later", HERE, 20)
    assert attempts.find(BOB, b"id") is None
    assert attempts.find(BOB, b"later") == HERE
    assert len(attempts) == 1


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    attempts = EarlierAttempts(lambda: 0.0)
    most = earlier_attempts.MAX_ATTEMPTS
    for number in range(most + 1):
        attempts.note(BOB, number.to_bytes(16, "big"), FIRST, 10)
    assert len(attempts) == most
    assert attempts.find(BOB, bytes(16)) is None
    assert attempts.find(BOB, most.to_bytes(16, "big")) == FIRST
