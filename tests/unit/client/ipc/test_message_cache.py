"""Message cache: what it returns is what the decoder returns, and it keeps only what repeats."""

from __future__ import annotations

import msgspec
import pytest

from fastn_p2p_client.ipc.message_cache import MAX_CACHED, MAX_CACHED_BYTES, MessageCache
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    Call,
    Cancel,
    DataMessage,
    DataRequest,
    DeliverCall,
    ErrorReply,
    Message,
    Reply,
    SessionData,
    WindowUpdate,
    encode,
)

CALL = Call("alice", "bob", "Echo", "default", 29_980)
DELIVERY = DeliverCall(bytes(32), "alice", "bob", "Echo", "default", 29_980)


@pytest.fixture
def cache() -> MessageCache:
    return MessageCache(msgspec.msgpack.Decoder(DataRequest | DataMessage))


@pytest.mark.parametrize(
    "message",
    [
        CALL,
        DELIVERY,
        msgspec.structs.replace(CALL, request_id="7f3a*"),
        msgspec.structs.replace(DELIVERY, request_id="7f3a*"),
        Reply(),
        SessionData(),
    ],
    ids=repr,
)
def test_messages_that_repeat_are_decoded_once(cache: MessageCache, message: Message) -> None:
    first = cache[encode(message)]
    assert first == message
    assert cache[encode(message)] is first


@pytest.mark.parametrize(
    "message",
    [
        msgspec.structs.replace(CALL, call_id=bytes(16)),
        msgspec.structs.replace(DELIVERY, call_id=bytes(16)),
        msgspec.structs.replace(CALL, request_id="7f3a"),
        msgspec.structs.replace(DELIVERY, request_id="7f3a"),
        msgspec.structs.replace(CALL, peer="p" * MAX_CACHED_BYTES),
        ErrorReply("overloaded", {"limit": 1}),
        WindowUpdate(1),
        Cancel(),
    ],
    ids=[
        "call id",
        "delivered call id",
        "request id",
        "delivered request id",
        "long ticket",
        "mutable fields",
        "numbers",
        "seldom",
    ],
)
def test_other_messages_are_not_kept(cache: MessageCache, message: Message) -> None:
    assert cache[encode(message)] == message
    assert not cache


def test_the_cache_is_bounded(cache: MessageCache) -> None:
    for number in range(3 * MAX_CACHED):
        call = msgspec.structs.replace(CALL, deadline_ms=number)
        assert cache[encode(call)] == call
        assert len(cache) <= MAX_CACHED


@pytest.mark.parametrize("header", [b"", b"\xff", encode([60]), encode([60, "alice", b"bob", "Echo", "default", 1])])
def test_what_cannot_be_decoded_raises_each_time(cache: MessageCache, header: bytes) -> None:
    for _ in range(2):
        with pytest.raises(UNDECODABLE):
            cache[header]
    assert not cache
