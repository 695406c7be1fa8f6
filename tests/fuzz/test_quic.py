"""The internet's side: a hostile peer on every kind of QUIC stream, and a daemon that does not notice."""

from __future__ import annotations

import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_actors.network.wire.messages import WIRE_VERSION
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.support.hostile_peer import HELLO, AnyStep, Bi, Channel, Talk, Uni, Until, hostile_peer
from tests.support.quic_victim import MALLORY, REQUEST, QuicVictim, introduction, request, victim
from tests.support.raw_connections import unharmed

__all__ = ["victim"]


def test_a_hostile_peer_that_behaves_is_served(victim: QuicVictim) -> None:
    """Control: the rejections in the tests below are caused by the wrong messages alone."""
    steps: list[AnyStep] = [Channel(HELLO + introduction() + request(1, victim.key)), Until(frames=1)]
    with hostile_peer(victim.target, [Talk(steps)]) as (account,):
        assert account.answers == [[3, 1]]


def test_garbage_on_the_call_channel_ends_that_connection_alone(victim: QuicVictim) -> None:
    noise = random.Random(1)
    known = HELLO + introduction()
    bad_header = b"\x00\x03\x00\x00\x00\x00abc"
    channels = [
        noise.randbytes(5000),
        known + noise.randbytes(5000),
        known + bad_header,
        known + b"\xff\xff\xff\xff\xff\xff",  # a header and a payload as long as can be
        known + b"\x00\x01\xff\xff\xff\xff\xc0",
        known + b"\x00\x00\x00\x00\x00\x00",  # nothing
        known + encode_frame(wire.Reply(1))[:6] + b"\x93" * 3,
        known + (6).to_bytes(2, "big") + bytes(4) + b"\x91\x91\x91\x91\x91\x91",
        known + (60_000).to_bytes(2, "big") + bytes(4) + b"\x92\x09" + b"\x91" * 59_998,
        request(1, victim.key),  # before any hello
        introduction() + request(1, victim.key),
        encode_frame(wire.Ping()),
    ]
    with unharmed(victim.daemon):
        talks = [Talk([Channel(data), Until(closed=True)]) for data in channels]
        with hostile_peer(victim.target, talks) as accounts:
            for data, account in zip(channels, accounts, strict=True):
                assert not account.stuck, (data[:100], account)
                assert account.closed, (data[:100], account)
                assert not account.answers or account.answers[0][0] == 5, (data[:100], account)
        victim.assert_serves()


def test_frames_that_are_well_formed_and_make_no_sense_do_no_harm(victim: QuicVictim) -> None:
    """Answers to nothing, requests with impossible keys and names: an answer for each that asks for one."""
    deep: object = "x"
    for _ in range(400):
        deep = [deep]
    nonsense = [
        encode_frame(wire.Reply(7), b"x" * 100),
        encode_frame(wire.Reply(-1)),
        encode_frame(wire.ApplicationErrorReply(7, "k" * 60_000, "")),
        encode_frame(wire.ErrorReply(7, "nonsense", {"reason": deep})),
        encode_frame(wire.ErrorReply(7, "overloaded", {"what": deep, "limit": 1})),
        encode_frame(wire.Cancel(70)),
        encode_frame(wire.Pong()),
        encode_frame(wire.RequestIntroduction(b"")),
        encode_frame(wire.RequestIntroduction(b"x" * 60_000)),
        encode_frame(wire.RequestIntroduction(bytes(32))),
        encode_frame(wire.Hello(WIRE_VERSION, b"again", MAX_PAYLOAD, 1)),
    ]
    requests = [
        request(1, b""),
        request(2, bytes(32)),
        request(3, b"\xff" * 32),
        request(4, b"x" * 1000),
        request(5, victim.key, protocol="P" * 65_000),
        request(6, victim.key, protocol="../../etc/passwd"),
        request(7, victim.key, protocol="\0"),
        request(8, victim.key, deadline_ms=-(2**63)),
        request(9, victim.key, deadline_ms=2**64 - 1),
        request(2**64 - 1, victim.key),
        request(-(2**63), victim.key),
    ]
    with unharmed(victim.daemon):
        steps: list[AnyStep] = [
            Channel(HELLO + introduction()),
            Channel(b"".join(nonsense)),
            Channel(b"".join(requests)),
        ]
        with hostile_peer(victim.target, [Talk([*steps, Until(frames=len(requests))])]) as (account,):
            assert (account.stuck, account.closed) == ("", "")
            outcomes = {answer[1]: answer[2] if answer[0] == 5 else "reply" for answer in account.answers}
        victim.assert_serves()
    assert outcomes.pop(8) in ("deadline-exceeded", "reply")
    assert outcomes == {
        1: "invalid-key",
        2: "invalid-key",
        3: "invalid-key",
        4: "invalid-key",
        5: "bad-message",
        6: "protocol-not-found",
        7: "protocol-not-found",
        9: "reply",
        2**64 - 1: "reply",
        -(2**63): "reply",
    }


def test_request_without_an_introduction_is_refused(victim: QuicVictim) -> None:
    """From an endpoint that has not shown itself before; and then one in the name of the victim itself."""
    stolen = wire.Request(2, victim.key, victim.key, "Echo", "default", 1000)
    fresh = b"f" * 32
    first = Channel(HELLO + request(1, victim.key))
    second = Channel(introduction(fresh) + encode_frame(stolen, REQUEST) + request(3, victim.key))
    with hostile_peer(victim.target, [Talk([first, Until(frames=1), second, Until(frames=3)], fresh)]) as (account,):
        assert account.codes == ["bad-message", "bad-message"]
        assert [answer[1] for answer in account.answers] == [1, 2, 3]


def test_another_alpn_gets_no_connection(victim: QuicVictim) -> None:
    with (
        unharmed(victim.daemon),
        hostile_peer(victim.target, [Talk([], alpn=b"h3"), Talk([], alpn=b"fastn-p2p/2")]) as accounts,
    ):
        assert all(account.closed.startswith("no connection") for account in accounts), accounts
    victim.assert_serves()


def test_another_wire_version_is_told_so(victim: QuicVictim) -> None:
    """A peer that speaks an older one beside it is served."""
    other, both = (
        encode_frame(wire.Hello(version, b"hostile1", MAX_PAYLOAD, 100, newest=WIRE_VERSION + 1))
        for version in (WIRE_VERSION + 1, WIRE_VERSION)
    )
    with hostile_peer(victim.target, [Talk([Channel(other), Until(closed=True)])]) as (account,):
        versions = f"one daemon has wire version {WIRE_VERSION}, the other {WIRE_VERSION + 1}. Upgrade the older one"
        assert versions in account.closed
    talk = Talk([Channel(both + introduction() + request(1, victim.key)), Until(frames=1)])
    with hostile_peer(victim.target, [talk]) as (account,):
        assert account.answers == [[3, 1]]


def test_bulk_streams_of_garbage_end_that_connection_alone(victim: QuicVictim) -> None:
    noise = random.Random(2)
    garbage = [noise.randbytes(100), noise.randbytes(70_000), b"\xff" * 10, HELLO + b"\x00\x01\x7f\xff\xff\xff\xc0"]
    with unharmed(victim.daemon):
        talks = [Talk([Channel(HELLO), Uni(data, finish=True), Until(closed=True)]) for data in garbage]
        with hostile_peer(victim.target, talks) as accounts:
            assert not [account for account in accounts if account.stuck or not account.closed]
        victim.assert_serves()


def test_streams_that_are_left_open_do_not_delay_other_peers(victim: QuicVictim) -> None:
    """With every stream open that a peer may have, honest calls still pass, also those that need a stream."""
    announced = encode_frame(wire.Request(1, bytes(MALLORY.key), victim.key, "Echo", "default", 1000), bytes(65_537))
    known = Channel(HELLO + introduction())
    with unharmed(victim.daemon):
        talks = [
            *(Talk([known, Uni(b"\x00", times=16)]) for _ in range(3)),
            *(Talk([known, Uni(announced[:7], times=16)]) for _ in range(3)),
            Talk([known, Bi(b"x" * 100)]),
            Talk([Channel(HELLO[:3])]),
            Talk([Uni(b"x" * 1000)]),
            Talk([]),
        ]
        with hostile_peer(victim.target, talks) as accounts:
            assert len(accounts) == len(talks)
            victim.assert_serves()
            victim.assert_serves(size=1_000_000)
    victim.assert_serves()


def test_thousands_of_pings_with_unread_answers_hold_little_memory(victim: QuicVictim) -> None:
    with unharmed(victim.daemon, grows_by=32 * 1024 * 1024):
        pings = Channel(encode_frame(wire.Ping()), times=100_000)
        wants = Channel(encode_frame(wire.RequestIntroduction(victim.key)), times=20_000)
        steps: list[AnyStep] = [Channel(HELLO + introduction()), pings, wants, pings]
        with hostile_peer(victim.target, [Talk(steps, listen=False)]):
            victim.assert_serves()
    victim.assert_serves()


frames = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda header, payload: len(header).to_bytes(2, "big") + len(payload).to_bytes(4, "big") + header + payload,
            st.one_of(
                st.binary(max_size=60),
                st.recursive(
                    st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=20), st.binary(max_size=40)),
                    lambda inner: st.lists(inner, max_size=7),
                ).map(msgspec.msgpack.encode),
                st.lists(st.one_of(st.integers(0, 12), st.binary(max_size=40)), min_size=1, max_size=8).map(
                    msgspec.msgpack.encode
                ),
            ),
            st.binary(max_size=40),
        ),
    ),
    max_size=6,
)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(frames, min_size=8, max_size=8))
def test_the_daemon_survives_any_bytes_of_a_peer(victim: QuicVictim, conversations: list[list[bytes]]) -> None:
    talks = [
        Talk([Channel(HELLO + introduction()), Channel(b"".join(each)), Uni(b"".join(each), finish=True)])
        for each in conversations
    ]
    with unharmed(victim.daemon), hostile_peer(victim.target, talks):
        victim.assert_serves()
