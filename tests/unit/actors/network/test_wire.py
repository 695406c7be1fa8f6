"""Frames between daemons: whole however they are split, and nothing but frames gets through."""

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
from fastn_p2p_client.errors import BadMessage, PayloadTooLarge
from fastn_p2p_client.limits import MAX_PAYLOAD

_KEY = bytes(32)
MESSAGES: list[wire.WireMessage] = [
    wire.Hello(1, b"process!", MAX_PAYLOAD, 10),
    wire.Introduce(b"delegation"),
    wire.Request(1, _KEY, _KEY, "Echo", "default", 1000),
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
]


def test_every_message_is_tried_here() -> None:
    assert {type(message) for message in MESSAGES} == set(wire.WireMessage.__args__)


@given(
    st.lists(st.tuples(st.sampled_from(MESSAGES), st.binary(max_size=300)), max_size=10),
    st.lists(st.integers(0, 4000), max_size=20),
)
def test_frames_survive_any_split(frames: list[tuple[wire.WireMessage, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(message, payload) for message, payload in frames)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader = FrameDecoder()
    seen: list[tuple[wire.WireMessage, bytes]] = []
    for start, end in itertools.pairwise(edges):
        seen.extend(reader.feed(stream[start:end]))
    assert seen == frames
    assert reader.pending == 0


@given(st.binary(max_size=2000))
def test_random_bytes_are_refused_or_wait_for_more(data: bytes) -> None:
    try:
        for message, _ in FrameDecoder().feed(data):
            assert isinstance(message, wire.WireMessage.__args__)
    except (BadMessage, PayloadTooLarge):
        pass


@given(st.sampled_from(MESSAGES), st.data())
def test_damaged_frames_are_refused_or_read_as_something_else(message: wire.WireMessage, data: st.DataObject) -> None:
    original = bytearray(encode_frame(message, b"payload"))
    position = data.draw(st.integers(0, len(original) - 1))
    original[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadMessage, PayloadTooLarge):
        list(FrameDecoder().feed(bytes(original)))


def test_a_payload_above_the_limit_is_refused_when_it_is_announced() -> None:
    header = encode_frame(wire.Reply(1))[6:]
    announced = struct.pack(">HI", len(header), wire.BULK_THRESHOLD + 1) + header
    with pytest.raises(PayloadTooLarge):
        list(FrameDecoder().feed(announced))
    assert list(FrameDecoder(MAX_PAYLOAD).feed(announced)) == []


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(BadMessage):
        decode_wire(b"\x91\x7f")


# ── the beginning of a session's stream ──────────────────────────────────────────────────────────
