"""Sessions and a hostile peer: it breaks the rules on their streams, and other sessions do not notice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_SESSIONS_PER_PEER
from tests.support.daemons import eventually
from tests.support.hostile_peer import (
    HELLO,
    SECRET,
    AnyStep,
    Bi,
    Channel,
    Session,
    Talk,
    Target,
    Until,
    endpoint_of,
    hostile_peer,
)
from tests.support.raw_connections import unharmed
from tests.support.sessions import count_sessions, run
from tests.support.signer import Signer
from tests.support.two_daemons import TwoDaemons, binding_of, start_two_daemons

MIB: Final = 1024 * 1024
MALLORY: Final = Signer("mallory")
FRESH: Final = b"g" * 32
"""Transport key of an endpoint that has introduced no identity."""
PUNISHED: Final = (b"u" * 32, b"v" * 32)
"""Transport keys of endpoints that get a penalty for their abuse, which would be felt by the next test."""


class Victim:
    """bob, whom a hostile peer torments while alice talks to him."""

    def __init__(self, daemons: TwoDaemons) -> None:
        self.daemons = daemons
        self.key = bytes(PublicKey(daemons.bob))
        status = daemons.two.status()
        self.target = Target(bytes.fromhex(status.endpoint), status.addresses)

    def assert_serves(self) -> None:
        """An honest session brings what it should, and an honest call too."""

        async def talk(client: Any) -> None:
            assert await client.call("alice", self.daemons.bob, "Trial", request={"do": "return", "value": 7}) == 7
            order = {"do": "send", "size": 300_000}
            async with await client.connect("alice", self.daemons.bob, "Trial", initial=order) as session:
                count = 0
                async for chunk in session:
                    count += len(chunk)
                assert count == 300_000

        run(self.daemons.one, talk)

    def assert_no_session_left(self) -> None:
        """Assert that no session of the hostile peer is left."""
        eventually(lambda: count_sessions(self.daemons) == 0, "no session is left")


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with start_two_daemons() as daemons:
        victim = Victim(daemons)
        victim.assert_serves()
        yield victim


def introduction(secret: bytes = SECRET) -> bytes:
    now = int(time.time())
    blob = MALLORY.delegation(endpoint=endpoint_of(secret), not_before=now - 10, not_after=now + 1000)
    return encode_frame(wire.Introduce(blob))


def opening(victim: Victim, do: str = "echo", number: int = 1, *, source: bytes | None = None, **changed: Any) -> bytes:
    """The frames that ask for a session."""
    fields = {"target": victim.key, "protocol": "Trial", "instance": "default", "deadline_ms": 10_000, **changed}
    order = msgspec.msgpack.encode({"do": do})
    return introduction() + encode_frame(wire.OpenSession(number, source or bytes(MALLORY.key), **fields), order)


def sessions(victim: Victim, do: str, then: Bi | None, *, times: int, first: int = 1) -> list[AnyStep]:
    """Return ``times`` sessions of the same kind."""
    return [Session(number, opening(victim, do, number), then) for number in range(first, first + times)]


def accepted(number: int) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(wire.SessionAccepted(number)))
    return found


def test_a_hostile_peer_that_behaves_has_its_session(victim: Victim) -> None:
    """Control: the rejections in the tests below are caused by the wrong messages alone."""
    steps: list[AnyStep] = [
        Channel(HELLO),
        Session(1, opening(victim, "who"), Bi(end="finish")),
        Session(2, opening(victim, number=2), Bi(more=b"x" * 100_000)),
        Until(frames=2),
    ]
    with hostile_peer(victim.target, [Talk(steps)]) as running:

        def bytes_came_back() -> bool:
            running.go_on()
            return running[0].received > MIB and running[0].ends == ["finished"]

        eventually(bytes_came_back, "its bytes come back")
        (account,) = running
        assert account.answers == [accepted(1), accepted(2)]
    victim.assert_no_session_left()


def test_unannounced_streams_end_their_connection_alone(victim: Victim) -> None:
    """Streams without an announcement, and announcements without a stream."""
    noise = random.Random(3)
    alone = [b"\0", noise.randbytes(70_000), HELLO, opening(victim)]
    announced = b"".join(encode_frame(wire.SessionStream(1, 4 * number)) for number in range(1, 1000))
    with unharmed(victim.daemons.two):
        unannounced: list[AnyStep] = [Bi(data, times=50) for data in alone]
        parts: tuple[list[AnyStep], ...] = (unannounced, [Channel(announced)])
        talks = [
            Talk([Channel(HELLO), *part, Until(closed=True)], secret)
            for part, secret in zip(parts, PUNISHED, strict=True)
        ]
        with hostile_peer(victim.target, talks) as accounts:
            assert [account.stuck for account in accounts] == ["", ""]
            assert all(account.closed for account in accounts)
            assert not any(account.answers for account in accounts)
        victim.assert_serves()
    victim.assert_no_session_left()


def test_a_stream_for_no_session_is_reset(victim: Victim) -> None:
    """Streams of a session that has just ended are reset as well."""
    with hostile_peer(victim.target, [Talk([Channel(HELLO), Bi(session=7), Bi(session=7)])]) as running:

        def both_are() -> bool:
            running.go_on()
            return len(running[0].ends) == 2

        eventually(both_are, "both are reset")
        assert [end.partition("(")[0] for end in running[0].ends] == ["Reset", "Reset"]
        assert not running[0].closed
    victim.assert_no_session_left()


def test_requests_that_cannot_be_are_refused_one_by_one(victim: Victim) -> None:
    """On the same connection, which goes on."""
    fresh = Channel(encode_frame(wire.OpenSession(1, bytes(MALLORY.key), victim.key, "Trial", "default", 1000)))
    asked: list[dict[str, Any]] = [
        {"source": victim.key},
        {"target": b""},
        {"target": b"x" * 1000},
        {"target": bytes(32)},
        {"protocol": "P" * 60_000},
        {"protocol": "../../etc"},
        {"instance": "\0"},
        {"do": "ponder", "deadline_ms": -(2**63)},
        {"do": "nonsense"},
        {"do": "refuse"},
        {"do": "raise"},
        {"protocol": "Echo", "instance": "private"},
        {"protocol": "Echo"},
    ]
    steps = [Session(number, opening(victim, number=number, **each)) for number, each in enumerate(asked, 1)]
    twice: list[AnyStep] = [Channel(HELLO), fresh, Until(frames=1), fresh, Until(frames=2)]
    with unharmed(victim.daemons.two):
        talks = [
            Talk([Channel(HELLO), *steps, Until(frames=len(asked)), Session(99, opening(victim, number=99))]),
            Talk(twice, FRESH),
        ]
        with hostile_peer(victim.target, talks) as (account, stranger):
            assert (account.stuck, account.closed) == ("", "")
            assert stranger.codes == ["bad-message", "bad-message"]
            refused = Counter(answer[2] for answer in account.answers if answer[0] == 5)
            assert refused == {
                "bad-message": 2,
                "invalid-key": 3,
                "protocol-not-found": 1,
                "instance-not-found": 1,
                "deadline-exceeded": 1,
                "bad-request": 2,
                "handler-failed": 1,
                "denied": 1,
            }
            assert [answer[0] for answer in account.answers].count(4) == 1
        victim.assert_serves()
    victim.assert_no_session_left()


def test_sessions_that_end_at_any_point_leave_the_connection_usable(victim: Victim) -> None:
    """Taken back, without a stream, with one that ends at once, under a number that is taken: the connection goes on,
    and so does an honest session on it."""
    ends = [Bi(end="reset"), Bi(end="finish"), Bi(end="drop"), Bi(b"", end="reset"), Bi(b"", end="finish"), None]
    steps: list[AnyStep] = [Channel(HELLO)]
    for first, then in enumerate(ends):
        steps += sessions(victim, "hold", then, times=3, first=100 * first + 1)
    steps += [Until(frames=3 * len(ends))]
    for number in (1000, 1001, 1002):
        steps += [Channel(opening(victim, "hold", number)), Channel(opening(victim, "hold", number))]
    steps += [Until(frames=3 * len(ends) + 3)]
    steps += [Channel(encode_frame(wire.Cancel(number))) for number in (1000, 501, 502, 503)]
    steps += [*sessions(victim, "hold", Bi(more=b"x" * 1000, listen=False), times=3, first=2000)]
    steps += [Session(3000, opening(victim, "who", 3000)), Until(frames=3 * len(ends) + 7)]
    with unharmed(victim.daemons.two):
        with hostile_peer(victim.target, [Talk(steps)]) as (account,):
            assert (account.stuck, account.closed) == ("", "")
            assert accepted(3000) in account.answers
            victim.assert_serves()
        victim.assert_serves()
    victim.assert_no_session_left()


def test_more_requests_than_there_may_be_sessions(victim: Victim) -> None:
    """Requests above the limit, and a few about to end, are rejected. Honest peers are not affected. With
    streams and without."""
    limit = MAX_SESSIONS_PER_PEER + MAX_SESSIONS_PER_PEER // 8
    with unharmed(victim.daemons.two):
        for then in (Bi(), None):
            steps = [Channel(HELLO), *sessions(victim, "echo", then, times=300), Until(frames=300)]
            with hostile_peer(victim.target, [Talk(steps)]) as (account,):
                assert not account.stuck
                assert sum(answer[0] == 11 for answer in account.answers) == limit
                assert account.codes == ["overloaded"] * (300 - limit)
                assert binding_of(victim.daemons.two, "bob", "Trial").sessions == limit
                victim.assert_serves()
            victim.assert_no_session_left()
            victim.assert_serves()


def test_a_peer_that_sends_and_sends_and_one_that_never_reads_hold_little(victim: Victim) -> None:
    """Handlers that read nothing, and a peer that reads nothing, with as much to say as there is."""
    pouring = Bi(more=b"x" * MIB, listen=False)
    with unharmed(victim.daemons.two, grows_by=64 * MIB):
        steps: list[AnyStep] = [
            Channel(HELLO),
            *sessions(victim, "hold", pouring, times=4),
            *sessions(victim, "echo", pouring, times=4, first=5),
            Until(frames=8),
        ]
        with hostile_peer(victim.target, [Talk(steps)]) as (account,):
            assert account.answers == [accepted(number) for number in range(1, 9)]
            victim.assert_serves()
            victim.assert_serves()
    victim.assert_no_session_left()
    victim.assert_serves()


def test_a_source_whose_time_is_over_opens_nothing_more(victim: Victim) -> None:
    now = int(time.time())
    old = MALLORY.delegation(endpoint=endpoint_of(b"o" * 32), not_before=now - 1000, not_after=now - 100)
    request = encode_frame(wire.Introduce(old)) + encode_frame(
        wire.OpenSession(1, bytes(MALLORY.key), victim.key, "Trial", "default", 1000)
    )
    with hostile_peer(victim.target, [Talk([Channel(HELLO), Channel(request), Until(frames=1)], b"o" * 32)]) as (
        account,
    ):
        assert account.codes == ["delegation-expired"]
