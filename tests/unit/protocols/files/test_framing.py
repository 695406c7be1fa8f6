"""Messages of FileTransfer: no bytes of a peer do more harm than to end the session."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.framing import BLOCK, HEAD, MAX_MESSAGE, FrameStream
from fastn_p2p.protocols.files.protocol import FileTransfer
from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.testing import session_pair

REQUEST = msgspec.msgpack.Decoder(f.Request)
ORDER = msgspec.msgpack.Decoder(f.SessionRequest)
DIGEST = bytes(32)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TAGS = st.sampled_from(["list", "stat", "offer", "await", "offers", "decide", "walk", "fetch", "send", "nonsense"])
FIELDS = st.sampled_from(["path", "after", "limit", "entries", "offer", "seconds", "accept", "force"])


@given(st.binary(max_size=200) | VALUES.map(msgspec.msgpack.encode))
def test_no_bytes_are_more_than_refused_by_the_decoders(data: bytes) -> None:
    for decoder in (REQUEST, ORDER):
        with contextlib.suppress(*UNDECODABLE):
            decoder.decode(data)  # raises nothing else


@given(TAGS, st.dictionaries(FIELDS, VALUES, max_size=4))
def test_decoded_frames_keep_to_their_limits(tag: str, fields: dict[str, Any]) -> None:
    try:
        request = REQUEST.decode(msgspec.msgpack.encode({**fields, "type": tag}))
    except UNDECODABLE:
        return
    if isinstance(request, f.ListDirectory):
        assert 1 <= request.limit <= f.MAX_PAGE
        assert len(request.path) <= 4096
    elif isinstance(request, f.WaitForDecision):
        assert 0 <= request.seconds <= f.MAX_WAIT
    elif isinstance(request, f.OfferFiles):
        assert 1 <= len(request.entries) <= f.MAX_OFFER


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "a", "kind": "device"},
        {"path": "a", "kind": "file", "size": -1},
        {"path": "a", "kind": "file", "size": 2**63},
        {"path": "a", "kind": "file", "mode": 0o4755},
        {"path": "a", "kind": "file", "mtime_ns": 2**63},
        {"path": "x" * 4097, "kind": "file"},
        {"kind": "file"},
    ],
)
def test_entries_that_cannot_be_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        REQUEST.decode(msgspec.msgpack.encode({"type": "offer", "entries": [entry]}))


def test_an_offer_of_too_many_entries_is_refused_before_they_are_read() -> None:
    head = b"\x82\xa4type\xa5offer\xa7entries\xdd" + struct.pack(">I", f.MAX_OFFER + 1)
    with pytest.raises(msgspec.ValidationError):
        REQUEST.decode(head + b"\x00" * 100)


def test_programs_may_ask_in_json() -> None:
    assert msgspec.json.decode(b'{"type": "list", "path": "photos"}', type=f.Request) == f.ListDirectory("photos")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type": "list", "directory": "photos"}', type=f.Request)
    assert FileTransfer.public is False


# ── frames ───────────────────────────────────────────────────────────────────────────────────────


def received(data: bytes) -> list[Any]:
    """Return the messages that these bytes are decoded to; the last one may be an error."""

    async def conversation() -> list[Any]:
        ours, theirs = session_pair()
        theirs.accept()
        await ours.write(data)
        await ours.send_eof()
        frames = FrameStream(theirs)
        heard: list[Any] = []
        try:
            while (said := await frames.receive()) is not None:
                heard.append(said)
                if isinstance(said, int):
                    while said:
                        said -= len(await frames.part(said))
        except BadMessage as error:
            heard.append(error)
        return heard

    return asyncio.run(conversation())


MESSAGES: list[f.TransferMessage] = [
    f.FileRequest("a/b", 12, DIGEST),
    f.FileReceived("a"),
    f.FileDeclined("a", "Exists", "it is there"),
    f.FileHeader(1, -2, 0o644, "tag", 0),
    f.FileEnd(DIGEST),
    f.FileFailed("NotFound", "no such file"),
    f.WalkEntries([f.Entry("a", "file", 1, 2, 0o600, "t")], [f.Skipped("b", "a link")]),
]


async def test_everything_that_can_be_said_is_heard() -> None:
    assert {type(message) for message in MESSAGES} == set(typing.get_args(f.TransferMessage))
    ours, theirs = session_pair()
    theirs.accept()
    speaker, hearer = FrameStream(ours), FrameStream(theirs)
    for message in MESSAGES:
        await speaker.send_message(message)
        assert await hearer.receive() == message
    await speaker.send_block(bytearray(HEAD) + b"content")
    assert await hearer.receive() == 7
    assert bytes(await hearer.part(4)) == b"cont"
    assert bytes(await hearer.part(100)) == b"ent"
    await ours.send_eof()
    assert await hearer.receive() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x00\x00\x00\x00\x05abc",
        b"\x00\x00\x00\x00\x00",
        struct.pack(">BI", 0, MAX_MESSAGE + 1),
        struct.pack(">BI", 1, BLOCK + 1),
        struct.pack(">BI", 1, 0),
        struct.pack(">BI", 1, 5) + b"abc",
        struct.pack(">BI", 2, 1) + b"a",
        struct.pack(">BI", 0, 2) + b"\x91\x63",
    ],
    ids=bytes.hex,
)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    (error,) = [each for each in received(data) if not isinstance(each, int)]
    assert isinstance(error, BadMessage)


@given(st.binary(max_size=100))
def test_no_bytes_are_more_than_refused_as_frames(data: bytes) -> None:
    received(data)  # does not raise


@given(VALUES)
def test_no_message_is_more_than_refused(value: Any) -> None:
    body = msgspec.msgpack.encode(value)
    (heard,) = received(struct.pack(">BI", 0, len(body)) + body)
    assert isinstance(heard, (BadMessage, *typing.get_args(f.TransferMessage)))
