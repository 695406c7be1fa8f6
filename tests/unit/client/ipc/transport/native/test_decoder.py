"""ZMTP codec: the same messages from pieces of any size, and errors for everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_client.ipc.transport.native.codec import (
    GREETING,
    ZERO_COPY_MIN,
    Payload,
    SocketType,
    ZmtpError,
    encode,
    pong,
    ready,
)
from fastn_p2p_client.ipc.transport.native.decoder import ZmtpDecoder
from fastn_p2p_client.limits import MAX_CHUNK, MAX_GROUP, MAX_HEADER, MAX_MESSAGE, MAX_PAYLOAD

Message = tuple[bytes, bytes, bytes]
OPENING = GREETING + ready("DEALER")


class Reader:
    """A decoder that records its results."""

    def __init__(self, kind: SocketType = "ROUTER") -> None:
        self.ready = 0
        self.messages: list[Message] = []
        self.invalid: list[tuple[list[bytes], str]] = []
        self.pings: list[bytes] = []
        self.decoder = ZmtpDecoder(kind, self.on_ready, self.on_message, self.on_invalid_message, self.pings.append)

    def on_ready(self) -> None:
        self.ready += 1

    def on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.messages.append((correlation, header, payload))

    def on_invalid_message(self, frames: list[bytes], reason: str) -> None:
        self.invalid.append((frames, reason))

    def feed(self, *pieces: bytes) -> Reader:
        for piece in pieces:
            assert self.decoder.feed(piece)
        return self

    def receive(self, data: bytes) -> None:
        """Receive bytes as a socket does: into the decoder's buffer while it has one, else into a shared buffer."""
        while data:
            room = self.decoder.room
            if room is None:
                assert self.decoder.feed(memoryview(bytearray(data)))
                return
            size = min(len(room), len(data))
            room[:size] = data[:size]
            data = data[size:]
            assert self.decoder.received(size)


def opened() -> Reader:
    return Reader().feed(OPENING)


def wire(correlation: bytes, header: bytes, payload: Payload) -> bytes:
    head, large = encode(correlation, header, payload)
    return head + (large or b"")


def group(frames: Sequence[bytes]) -> bytes:
    """Return a ZeroMQ message of any frames, each in the long form."""
    last = len(frames) - 1
    return b"".join(
        bytes([2 | (number < last)]) + len(frame).to_bytes(8, "big") + frame for number, frame in enumerate(frames)
    )


sizes = st.sampled_from([0, 1, 2, 254, 255, 256, 257, 5000, 65_535, 65_536, MAX_CHUNK, MAX_CHUNK + 1, 300_000])
payloads = st.builds(lambda size, fill: bytes([fill]) * size, sizes, st.integers(0, 255))
messages = st.tuples(st.binary(max_size=16), st.one_of(st.binary(max_size=300), payloads), payloads).filter(
    lambda message: len(message[1]) <= MAX_HEADER
)


@given(st.lists(messages, max_size=6), st.booleans(), st.booleans(), st.data())
def test_any_split_of_the_bytes_is_the_same_messages(
    sent: list[Message], grouped: bool, received: bool, data: st.DataObject
) -> None:
    if grouped and sent:
        stream = OPENING + group([frame for message in sent for frame in message])
    else:
        stream = OPENING + b"".join(wire(*message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = Reader()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if received:
            reader.receive(stream[start:stop])
        else:
            reader.feed(stream[start:stop])
    assert reader.messages == sent
    assert all(type(frame) is bytes for message in reader.messages for frame in message)
    assert (reader.ready, reader.invalid) == (1, [])


def test_the_buffer_of_an_incomplete_chunk_counts_as_held() -> None:
    message = wire(b"id", b"header", bytes(MAX_CHUNK))
    reader = opened().feed(message[:1000])
    assert reader.decoder.room is not None
    assert MAX_CHUNK < reader.decoder.held < MAX_CHUNK + 10_000
    reader.receive(message[1000:])
    assert reader.decoder.room is None
    assert reader.decoder.held == 0
    assert reader.messages == [(b"id", b"header", bytes(MAX_CHUNK))]


def test_a_decoder_that_was_stopped_has_no_buffer() -> None:
    message = wire(b"id", b"header", bytes(MAX_CHUNK))
    reader = opened().feed(message[:1000])
    reader.decoder.stop()
    assert reader.decoder.room is None
    assert reader.decoder.received(1000)
    assert (reader.decoder.held, reader.messages) == (0, [])


def test_buffers_of_two_connections_are_not_mixed_up() -> None:
    first, second = opened(), opened()
    one, two = wire(b"1", b"", b"1" * MAX_CHUNK), wire(b"2", b"", b"2" * MAX_CHUNK)
    for reader, message in ((first, one), (second, two)):
        reader.feed(message[:100])
    for start in range(100, len(one), 50_000):
        first.receive(one[start : start + 50_000])
        second.receive(two[start : start + 50_000])
    assert first.messages == [(b"1", b"", b"1" * MAX_CHUNK)]
    assert second.messages == [(b"2", b"", b"2" * MAX_CHUNK)]


def test_byte_by_byte() -> None:
    sent = [(b"1", b"h" * 300, b"p" * 70_000), (b"", b"", b""), (b"i" * 16, b"x", b"y")]
    stream = OPENING + b"".join(wire(*message) for message in sent)
    reader = Reader()
    for number in range(len(stream)):
        reader.feed(stream[number : number + 1])
    assert reader.messages == sent


@pytest.mark.parametrize("size", [0, 255, 256, ZERO_COPY_MIN - 1, ZERO_COPY_MIN, MAX_PAYLOAD])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(data)])
def test_payloads_of_every_size_and_kind(size: int, kind: type[bytes]) -> None:
    payload = bytes(size)
    reader = opened().feed(wire(b"id", b"header", kind(payload)))
    assert reader.messages == [(b"id", b"header", payload)]
    assert type(reader.messages[0][2]) is bytes


def test_large_payloads_are_written_without_copying() -> None:
    payload = bytearray(ZERO_COPY_MIN)
    head, large = encode(b"id", b"header", payload)
    assert large is payload
    assert len(head) < 40


@given(st.lists(messages, min_size=1, max_size=6), st.integers(1, 3))
def test_a_burst_ends_after_so_many_and_goes_on_where_it_was(sent: list[Message], burst: int) -> None:
    reader = opened()
    done = reader.decoder.feed(b"".join(wire(*message) for message in sent), burst)
    handed = burst
    while not done:
        assert reader.messages == sent[:handed]
        done = reader.decoder.feed(b"", burst)
        handed += burst
    assert reader.messages == sent


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"1"],
        [b"1", b"2"],
        [b"1", b"2", b"3", b"4"],
        [b"i" * 17, b"", b""],
        [b"i", b"h" * (MAX_HEADER + 1), b""],
        [b"i", b"", bytes(MAX_PAYLOAD + 1)],
    ],
    ids=lambda frames: "-".join(str(len(frame)) for frame in frames),
)
def test_invalid_frames_are_reported_and_cost_nothing_else(frames: list[bytes]) -> None:
    reader = opened().feed(group(frames) + wire(b"id", b"next", b""))
    assert [each[0] for each in reader.invalid] == [frames]
    assert reader.messages == [(b"id", b"next", b"")]


def test_an_invalid_message_in_a_group_costs_the_others_nothing() -> None:
    reader = opened().feed(group([b"1", b"a", b"", b"i" * 17, b"b", b"", b"3", b"c", b""]))
    assert reader.messages == [(b"1", b"a", b""), (b"3", b"c", b"")]
    assert [each[0] for each in reader.invalid] == [[b"i" * 17, b"b", b""]]


def test_frames_of_one_message_are_limited() -> None:
    frames = [b"x"] * 3 * MAX_GROUP
    assert len(opened().feed(group(frames)).messages) == MAX_GROUP
    for more in (1, 3, 100_000):
        reader = opened().feed(group(frames + [b"x"] * more) + wire(b"id", b"next", b""))
        assert len(reader.invalid[0][0]) == 3 * MAX_GROUP + 1
        assert reader.messages == [(b"id", b"next", b"")]


def test_bytes_of_one_message_are_limited() -> None:
    reader = opened()
    large = b"\x03" + MAX_MESSAGE.to_bytes(8, "big") + bytes(MAX_MESSAGE)
    reader.feed(large, large)
    with pytest.raises(ZmtpError, match="too long together"):
        reader.feed(large)


GARBAGE = {
    "nothing like it": b"GET / HTTP/1.1\r\n\r\n",
    "half a signature": b"\xff" + bytes(9),
    "version 2": GREETING[:10] + b"\x02",
    "version 4": GREETING[:10] + b"\x04",
    "another mechanism": GREETING.replace(b"NULL", b"PLAI"),
    "traffic before READY": GREETING + b"\x00\x00",
    "another command before READY": GREETING + b"\x04\x05\x04PING",
    "ERROR before READY": GREETING + b"\x04\x0b\x05ERROR\x04nope",
    "READY as a traffic frame": GREETING + b"\x00" + ready("DEALER")[1:],
    "no socket type": GREETING + b"\x04\x06\x05READY",
    "a socket that does not fit": GREETING + ready("DEALER").replace(b"DEALER", b"PUBPUB"),
    "properties cut short": GREETING + b"\x04\x12\x05READY\x0bSocket-Type",
    "properties that are too long": GREETING + b"\x04\x17\x05READY\x0bSocket-Type\xff\xff\xff\xffX",
    "a command too long": GREETING + b"\x06" + (2**20).to_bytes(8, "big"),
    "a frame too long": OPENING + b"\x02" + (MAX_MESSAGE + 1).to_bytes(8, "big"),
    "a frame longer than all memory": OPENING + b"\x02" + b"\xff" * 8,
    "a command with more": OPENING + b"\x05\x01x",
    "unknown flags": OPENING + b"\x08\x01x",
    "a command without a name": OPENING + b"\x04\x00",
    "a command with an empty name": OPENING + b"\x04\x01\x00",
    "a command with half a name": OPENING + b"\x04\x02\x05x",
    "ERROR": OPENING + b"\x04\x0b\x05ERROR\x04nope",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_malformed(name: str) -> None:
    reader = Reader()
    with pytest.raises(ZmtpError):
        reader.feed(GARBAGE[name])
    assert not reader.messages


@given(st.sampled_from([b"", GREETING, OPENING]), st.lists(st.binary(max_size=400), max_size=5))
def test_random_bytes_are_messages_or_an_error(start: bytes, pieces: list[bytes]) -> None:
    reader = Reader()
    with contextlib.suppress(ZmtpError):
        reader.feed(start, *pieces)  # raises nothing else


def test_only_compatible_socket_types_are_accepted() -> None:
    pairs: list[tuple[SocketType, SocketType]] = [
        ("ROUTER", "DEALER"),
        ("ROUTER", "ROUTER"),
        ("DEALER", "ROUTER"),
        ("DEALER", "DEALER"),
    ]
    for ours, theirs in pairs:
        assert Reader(ours).feed(GREETING + ready(theirs)).ready == 1


def test_commands_between_messages() -> None:
    ping = b"\x04\x0a\x04PING\x00\x64abc"
    unknown = b"\x04\x0a\x09SUBSCRIBE"
    reader = opened().feed(ping + wire(b"1", b"h", b"") + unknown + wire(b"2", b"h", b""))
    assert [message[0] for message in reader.messages] == [b"1", b"2"]
    assert reader.pings == [b"abc"]
    assert pong(b"abc") == b"\x04\x08\x04PONGabc"


def test_an_exception_costs_the_message_that_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    seen: list[bytes]

    def fail_once(correlation: bytes, header: bytes, payload: bytes) -> None:
        seen.append(correlation)
        if len(seen) == 1:
            raise ValueError("a defect")

    for stream in (wire(b"1", b"", b"") + wire(b"2", b"", b""), group([b"1", b"", b"", b"2", b"", b""])):
        seen = []
        caplog.clear()
        reader.decoder = ZmtpDecoder(
            "ROUTER", reader.on_ready, fail_once, reader.on_invalid_message, reader.pings.append
        )
        reader.feed(OPENING + stream)
        assert seen == [b"1", b"2"]
        assert "a defect" in caplog.text


def test_nothing_is_handed_over_after_stop() -> None:
    reader = Reader()
    seen: list[bytes] = []

    def once(correlation: bytes, header: bytes, payload: bytes) -> None:
        seen.append(correlation)
        reader.decoder.stop()

    for stream in (wire(b"1", b"", b"") + wire(b"2", b"", b""), group([b"1", b"", b"", b"2", b"", b""])):
        seen.clear()
        reader.decoder = ZmtpDecoder("ROUTER", reader.on_ready, once, reader.on_invalid_message, reader.pings.append)
        reader.feed(OPENING + stream, wire(b"3", b"", b""))
        assert seen == [b"1"]
