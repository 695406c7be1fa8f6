"""Daemons that may have executed retried calls, with a clock that the test sets."""

from __future__ import annotations

from fastn_p2p_actors.network.calls import earlier_attempts
from fastn_p2p_actors.network.calls.earlier_attempts import THIS_DAEMON, EarlierAttempts

BOB, CAROL = b"b" * 32, b"c" * 32
FIRST, SECOND = b"1" * 32, b"2" * 32


def test_the_daemon_that_got_a_call_first_is_remembered_until_the_deadline() -> None:
    now = 0.0
    attempts = EarlierAttempts(lambda: now)
    attempts.note(BOB, b"id", FIRST, 10)
    attempts.note(BOB, b"id", SECOND, 10)
    assert attempts.endpoint_of(BOB, b"id") == FIRST
    assert attempts.endpoint_of(CAROL, b"id") is None
    assert attempts.endpoint_of(BOB, b"other") is None
    now = 11.0
    attempts.note(BOB, b"later", THIS_DAEMON, 20)
    assert attempts.endpoint_of(BOB, b"id") is None
    assert attempts.endpoint_of(BOB, b"later") == THIS_DAEMON
    assert len(attempts) == 1


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    attempts = EarlierAttempts(lambda: 0.0)
    most = earlier_attempts.MAX_ATTEMPTS
    for number in range(most + 1):
        attempts.note(BOB, number.to_bytes(16, "big"), FIRST, 10)
    assert len(attempts) == most
    assert attempts.endpoint_of(BOB, bytes(16)) is None
    assert attempts.endpoint_of(BOB, most.to_bytes(16, "big")) == FIRST
