"""Callers are told that a binding is stateless: once in half a minute, and only daemons that understand it."""

from __future__ import annotations

from fastn_p2p_actors.network.serving.stateless_bindings import REPEAT_SECONDS, StatelessBindings
from fastn_p2p_actors.network.wire import messages as wire
from tests.support.loop_clock import LoopClock, clock

__all__ = ["clock"]

BOB = bytes(32)
TOLD = wire.SpreadRequests(BOB, "Spread", "default")


class _Connection:
    def __init__(self, start: bytes = b"12345678") -> None:
        self.daemon_start = start
        self.sent: list[wire.WireMessage] = []

    def send(self, message: wire.WireMessage) -> None:
        self.sent.append(message)


def tell(bindings: StatelessBindings, connection: _Connection, protocol: str = "Spread") -> None:
    bindings.notify(connection, "bob", BOB, protocol, "default")


def test_a_daemon_is_told_once_in_half_a_minute(clock: LoopClock) -> None:
    bindings = StatelessBindings()
    bindings.note("bob", "Spread", "default", stateless=True)
    one, two = _Connection(), _Connection()
    for _ in range(3):
        tell(bindings, one)
    assert one.sent == [TOLD]
    tell(bindings, two)
    assert two.sent == [TOLD]
    clock.now += REPEAT_SECONDS
    tell(bindings, one)
    assert one.sent == [TOLD, TOLD]


def test_nobody_is_told_of_other_bindings_and_no_older_version_of_any(clock: LoopClock) -> None:
    bindings = StatelessBindings()
    connection = _Connection()
    assert not bindings
    bindings.note("bob", "Spread", "default", stateless=True)
    assert bindings
    tell(bindings, connection, "Shop")
    assert connection.sent == []
    older = _Connection(start=b"")
    tell(bindings, older)
    assert older.sent == []
    bindings.note("bob", "Spread", "default", stateless=False)
    assert not bindings
    tell(bindings, connection)
    assert connection.sent == []
