"""Frames of the wire protocol are decoded in pieces of any size; anything else is rejected."""

from __future__ import annotations

import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import FrameDecoder, encode_frame
from fastn_p2p_actors.network.wire.messages import decode_wire
from fastn_p2p_client.errors import BadMessage, DaemonNotRunning, Denied, HandlerFailed, PayloadTooLarge
from fastn_p2p_client.limits import MAX_PAYLOAD

_KEY = bytes(32)
MESSAGES: list[wire.WireMessage] = [
    wire.Hello(1, b"process!", MAX_PAYLOAD, 10),
    wire.Introduce(b"delegation"),
    wire.Request(1, _KEY, _KEY, "Echo", "default", 1000),
    wire.RepeatedRequest(1, _KEY, _KEY, "Echo", "default", 1000, earlier=b"earlier!"),
    wire.Reply(2),
    wire.ApplicationErrorReply(3, "MessageTooLong", "too long"),
    wire.ErrorReply(4, "denied", {"peer": "p", "protocol": "Echo", "instance": "default"}),
    wire.Cancel(5),
    wire.Ping(),
    wire.Pong(),
    wire.RequestIntroduction(_KEY),
    wire.OpenSession(6, _KEY, _KEY, "Echo", "default", 1000),
    wire.SessionAccepted(6),
    wire.SessionStream(6, 4),
    wire.Pause(4),
    wire.Resume(4),
    wire.ObservedAddress("203.0.113.7:4000"),
    wire.PushRecord(b"record"),
    wire.IdentityOffline(_KEY),
    wire.RedeemInvitation(7, _KEY, _KEY, bytes(16), "carol", b"record"),
    wire.SpreadRequests(_KEY, "Work", "default"),
    wire.ShowOwner(_KEY, b"statement", b"record"),
    wire.RenewReplica(8, _KEY, ("https://relay.example/",), ("192.0.2.7:4000",), True, False),
]


def test_messages_here_are_all_messages() -> None:
    assert {type(message) for message in MESSAGES} == set(wire.WireMessage.__args__)


@given(
    st.lists(st.tuples(st.sampled_from(MESSAGES), st.binary(max_size=300)), max_size=10),
    st.lists(st.integers(0, 4000), max_size=20),
)
def test_decodes_frames_of_a_stream_split_anywhere(
    frames: list[tuple[wire.WireMessage, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(message, payload) for message, payload in frames)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader = FrameDecoder()
    seen: list[tuple[wire.WireMessage, bytes]] = []
    for start, end in itertools.pairwise(edges):
        seen.extend(reader.feed(stream[start:end]))
    assert seen == frames
    assert reader.pending == 0


@given(st.binary(max_size=2000))
def test_rejects_random_bytes_or_waits_for_more(data: bytes) -> None:
    try:
        for message, _ in FrameDecoder().feed(data):
            assert isinstance(message, wire.WireMessage.__args__)
    except (BadMessage, PayloadTooLarge):
        pass


@given(st.sampled_from(MESSAGES), st.data())
def test_rejects_damaged_frames_or_decodes_another_message(message: wire.WireMessage, data: st.DataObject) -> None:
    original = bytearray(encode_frame(message, b"payload"))
    position = data.draw(st.integers(0, len(original) - 1))
    original[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadMessage, PayloadTooLarge):
        list(FrameDecoder().feed(bytes(original)))  # raises nothing else


def test_rejects_a_payload_above_the_limit_at_its_announcement() -> None:
    header = encode_frame(wire.Reply(1))[6:]
    announced = struct.pack(">HI", len(header), wire.BULK_THRESHOLD + 1) + header
    with pytest.raises(PayloadTooLarge):
        list(FrameDecoder().feed(announced))
    assert list(FrameDecoder(MAX_PAYLOAD).feed(announced)) == []


def test_rejects_an_unknown_tag() -> None:
    with pytest.raises(BadMessage):
        decode_wire(b"\x91\x7f")


# ── the beginning of a session's stream ──────────────────────────────────────────────────────────


def test_a_peer_cannot_report_local_state() -> None:
    denied = wire.remote_error(
        wire.ErrorReply(1, Denied.code, {"peer": "p", "protocol": "Echo", "instance": "default"})
    )
    assert isinstance(denied, Denied)
    local = wire.remote_error(wire.ErrorReply(1, DaemonNotRunning.code, {"home": "/home/alice"}))
    assert isinstance(local, HandlerFailed)
    assert DaemonNotRunning.code in str(local)
