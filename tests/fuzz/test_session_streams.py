"""The internet's side of sessions: a rogue peer on the streams that they travel on, and sessions that do not notice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from fastn_p2p_actors.network.wire import (
    WireAccept,
    WireIntroduce,
    WireOpen,
    WirePing,
    WireRefusal,
    WireReply,
    WireRequest,
    frame,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_INITIAL, MAX_SESSIONS_PER_PEER
from tests.e2e.sessions import run, standing
from tests.e2e.world import World, binding_of, new_world
from tests.harness import eventually
from tests.unit.signer import Signer

from .raw import unharmed
from .rogue import HELLO, SECRET, AnyStep, Bi, Channel, Talk, Target, Until, endpoint_of, rogue

MIB: Final = 1024 * 1024
MALLORY: Final = Signer("mallory")
FRESH: Final = b"g" * 32
"""The transport key of an endpoint that has not introduced anybody."""
ACCEPT: Final = msgspec.msgpack.decode(msgspec.msgpack.encode(WireAccept()))


class Victim:
    """bob, whom a rogue torments while alice talks to him."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.key = bytes(PublicKey(world.bob))
        status = world.two.status()
        self.target = Target(bytes.fromhex(status.endpoint), status.addresses)

    def serves(self) -> None:
        """An honest session brings what it should, and an honest call too."""

        async def talk(client: Any) -> None:
            assert await client.call("alice", self.world.bob, "Trial", request={"do": "return", "value": 7}) == 7
            order = {"do": "send", "size": 300_000}
            async with await client.connect("alice", self.world.bob, "Trial", initial=order) as session:
                count = 0
                async for chunk in session:
                    count += len(chunk)
                assert count == 300_000

        run(self.world.one, talk)

    def quiet(self) -> None:
        """Nothing of what the rogue began is left."""
        eventually(lambda: standing(self.world) == 0, "no session is left", 5)


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with new_world() as world:
        victim = Victim(world)
        victim.serves()
        yield victim


def introduction(secret: bytes = SECRET) -> bytes:
    now = int(time.time())
    blob = MALLORY.delegation(endpoint=endpoint_of(secret), not_before=now - 10, not_after=now + 1000)
    return frame(WireIntroduce(blob))


def opening(victim: Victim, do: str = "echo", *, source: bytes | None = None, **changed: Any) -> bytes:
    """The frames that a session begins with."""
    fields = {"target": victim.key, "protocol": "Trial", "instance": "default", "deadline_ms": 10_000, **changed}
    order = msgspec.msgpack.encode({"do": do})
    return introduction() + frame(WireOpen(source or bytes(MALLORY.key), **fields), order)


def test_a_rogue_that_behaves_has_its_session(victim: Victim) -> None:
    """Which shows that the refusals below are for what it does wrong."""
    steps: list[AnyStep] = [
        Channel(HELLO),
        Bi(opening(victim, "who"), end="finish"),
        Bi(opening(victim), more=b"x" * 100_000, listen=True),
        Until(frames=2),
    ]
    with rogue(victim.target, [Talk(steps)]) as running:

        def much_has_come_back() -> bool:
            running.go_on()
            return running[0].received > MIB

        eventually(much_has_come_back, "its bytes come back")
        (account,) = running
        assert account.answers == [ACCEPT, ACCEPT]
        assert account.ends == ["finished"]
    victim.quiet()


def test_garbage_on_a_stream_ends_that_connection_alone(victim: Victim) -> None:
    noise = random.Random(3)
    garbage = [
        noise.randbytes(100),
        noise.randbytes(70_000),
        b"\xff" * 6,
        b"\x00\x00\x00\x00\x00\x00",
        b"\x00\x01\x7f\xff\xff\xff\xc0",
        frame(WirePing()),
        frame(WireReply(1)),
        frame(WireAccept()),
        frame(WireRequest(1, bytes(MALLORY.key), victim.key, "Trial", "default", 1000)),
        introduction()
        + frame(WireOpen(bytes(MALLORY.key), victim.key, "Trial", "default", 1000), bytes(MAX_INITIAL + 1)),
        opening(victim) + b"before it was accepted",
        HELLO,
    ]
    with unharmed(victim.world.two):
        talks = [Talk([Channel(HELLO), Bi(data), Until(closed=True)]) for data in garbage]
        with rogue(victim.target, talks) as accounts:
            for data, account in zip(garbage, accounts, strict=True):
                assert not account.stuck, (data[:50], account)
                assert account.closed, (data[:50], account)
                assert not account.answers, (data[:50], account)
        victim.serves()
    victim.quiet()


def test_requests_that_cannot_be_are_refused_one_by_one(victim: Victim) -> None:
    """On the same connection, which goes on."""
    fresh = frame(WireOpen(bytes(MALLORY.key), victim.key, "Trial", "default", 1000))
    asked = [
        opening(victim, source=victim.key),
        opening(victim, target=b""),
        opening(victim, target=b"x" * 1000),
        opening(victim, target=bytes(32)),
        opening(victim, protocol="P" * 60_000),
        opening(victim, protocol="../../etc"),
        opening(victim, instance="\0"),
        opening(victim, "ponder", deadline_ms=-(2**63)),
        opening(victim, "nonsense"),
        opening(victim, "refuse"),
        opening(victim, "raise"),
        opening(victim, protocol="Echo", instance="private"),
        opening(victim, protocol="Echo"),
    ]
    with unharmed(victim.world.two):
        strange: list[AnyStep] = [Channel(HELLO), Bi(fresh), Until(frames=1), Bi(fresh), Until(frames=2)]
        talks = [
            Talk([Channel(HELLO), *(Bi(data) for data in asked), Until(frames=len(asked)), Bi(opening(victim))]),
            Talk(strange, FRESH),
        ]
        with rogue(victim.target, talks) as (account, stranger):
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
        victim.serves()
    victim.quiet()


def test_streams_that_end_anywhere_cost_nobody_but_themselves(victim: Victim) -> None:
    """Reset, finished and forgotten at every point: the connection goes on, and so does an honest session on it."""
    whole = opening(victim, "hold")
    cuts = [0, 1, 5, 6, 7, len(introduction()), len(introduction()) + 3, len(whole) - 1]
    ends: list[Any] = ["reset", "finish", "drop"]
    early = [Bi(whole[:cut], end=end) for cut in cuts for end in ends]
    late: list[AnyStep] = [Bi(whole, end=end, listen=False) for end in ends for _ in range(5)]
    talking: list[AnyStep] = [Bi(whole, more=b"x" * 1000, listen=False) for _ in range(3)]
    with unharmed(victim.world.two):
        steps: list[AnyStep] = [Channel(HELLO), *early, *late, *talking, Bi(opening(victim, "who")), Until(frames=4)]
        with rogue(victim.target, [Talk(steps)]) as (account,):
            assert (account.stuck, account.closed) == ("", "")
            assert ACCEPT in account.answers
            victim.serves()
        victim.serves()
    victim.quiet()


def test_more_streams_than_there_may_be_sessions(victim: Victim) -> None:
    """Those above the limit, and a few that may be about to end, are told so; honest peers are not concerned."""
    limit = MAX_SESSIONS_PER_PEER + MAX_SESSIONS_PER_PEER // 8
    with unharmed(victim.world.two):
        steps: list[AnyStep] = [Channel(HELLO), Bi(opening(victim), times=300), Until(frames=300)]
        with rogue(victim.target, [Talk(steps)]) as (account,):
            assert not account.stuck
            assert account.answers.count(ACCEPT) == limit
            assert account.codes == ["overloaded"] * (300 - limit)
            assert binding_of(victim.world.two, "bob", "Trial").sessions == limit
            victim.serves()
        victim.quiet()
        victim.serves()


def test_streams_that_say_what_they_are_for_byte_by_byte_keep_nobody_waiting(victim: Victim) -> None:
    """All that QUIC allows, from several peers."""
    whole = opening(victim)
    with unharmed(victim.world.two):
        talks = [
            Talk([Channel(HELLO), Bi(whole[:1], times=250)]),
            Talk([Channel(HELLO), Bi(b"", times=250)]),
            Talk([Channel(HELLO), Bi(whole[:-1], times=250)]),
            Talk([Channel(HELLO), Bi(frame(WireRefusal(0, "k", "m"))[:9], times=250)]),
        ]
        with rogue(victim.target, talks):
            victim.serves()
            victim.serves()
        victim.quiet()


def test_a_peer_that_sends_and_sends_and_one_that_never_reads_hold_little(victim: Victim) -> None:
    """Handlers that read nothing, and a peer that reads nothing, with as much to say as there is."""
    with unharmed(victim.world.two, grows_by=64 * MIB):
        steps: list[AnyStep] = [
            Channel(HELLO),
            Bi(opening(victim, "hold"), times=8, more=b"x" * MIB, listen=False),
            Bi(opening(victim, "echo"), times=8, more=b"x" * MIB, listen=False),
            Until(frames=16),
        ]
        with rogue(victim.target, [Talk(steps)]) as (account,):
            assert account.answers == [ACCEPT] * 16
            victim.serves()
            victim.serves()
    victim.quiet()
    victim.serves()


def test_a_source_whose_time_is_over_opens_nothing_more(victim: Victim) -> None:
    now = int(time.time())
    old = MALLORY.delegation(endpoint=endpoint_of(b"o" * 32), not_before=now - 1000, not_after=now - 100)
    request = frame(WireIntroduce(old)) + frame(WireOpen(bytes(MALLORY.key), victim.key, "Trial", "default", 1000))
    with rogue(victim.target, [Talk([Channel(HELLO), Bi(request), Until(frames=1)], b"o" * 32)]) as (account,):
        assert account.codes == ["delegation-expired"]
