"""Request ids: what may be one, what takes the place of one that may not, and messages of other versions."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_client.errors import InvalidName, PeerUnknown
from fastn_p2p_client.ipc.messages import (
    Call,
    DataMessage,
    DataRequest,
    DeliverCall,
    DeliverSession,
    OpenSession,
    encode,
)
from fastn_p2p_client.limits import MAX_REQUEST_ID
from fastn_p2p_client.otel import safe_traceparent
from fastn_p2p_client.request_id import check_request_id, full_id, is_request_id, new_request_id, safe_id

NUMBER = (255).to_bytes(8, "big")
GARBAGE = [
    "x" * (MAX_REQUEST_ID + 1),
    "a b",
    "a\n2026-01-01 ERROR",
    "\x1b[2J",
    "ü",
    "a]: b",
    "*",
    "a*b",
    "\0",
    "x" * 60_000,
]


@pytest.mark.parametrize("text", ["a", "7f3a-1", "trace_1.2", "Root=1-67/+", "x" * MAX_REQUEST_ID])
def test_an_id_is_kept(text: str) -> None:
    assert check_request_id(text) == text
    assert safe_id(text, NUMBER, b"call") == (text, b"")


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused_here_and_replaced_where_it_comes_from_others(text: str) -> None:
    with pytest.raises(InvalidName):
        check_request_id(text)
    for number in (NUMBER, b"", b"x" * 16, b"x" * 60_000):
        found = full_id(*safe_id(text, number))
        assert found
        assert is_request_id(found)


def test_a_request_without_an_id_gets_its_call_id_or_a_new_one() -> None:
    assert safe_id("", b"", b"\x01" * 16) == ("01" * 16, b"")
    first, second = safe_id("", NUMBER), safe_id("", NUMBER)
    assert first != second
    assert check_request_id(new_request_id())


def test_a_numbered_id_stays_short_until_it_is_read() -> None:
    assert safe_id("7f3a*", NUMBER) == ("7f3a*", NUMBER)
    assert full_id("7f3a*", NUMBER) == "7f3aff"
    long = safe_id("7f3a*", b"\x01" * 16)
    assert full_id(*long) == "7f3a" + ("01" * 16)[1:]


def test_an_error_keeps_its_id_when_it_is_pickled() -> None:
    error = PeerUnknown(peer="bob")
    error.request_id = "7f3a"
    found = pickle.loads(pickle.dumps(error))
    assert (found.request_id, found.fields()) == ("7f3a", {"peer": "bob"})


KEY = bytes(32)
NEWEST: list[Any] = [
    Call("alice", "bob", "Echo", "default", 1, request_id="7f3a*", traceparent="00"),
    OpenSession("alice", "bob", "Echo", "default", 1, 1, "7f3a"),
    DeliverCall(KEY, "", "bob", "Echo", "default", 1, request_id="7f3a*"),
    DeliverSession(KEY, "", "bob", "Echo", "default", 1, 1, request_id="7f3a"),
    wire.Request(1, KEY, KEY, "Echo", "default", 1, request_id="7f3a*", number=NUMBER),
    wire.OpenSession(1, KEY, KEY, "Echo", "default", 1, "7f3a"),
]


@pytest.mark.parametrize("message", NEWEST, ids=lambda each: type(each).__name__)
def test_other_versions_understand_a_message(message: Any) -> None:
    """An older message ends before the id; an older reader ignores what follows the fields that it knows."""
    fields = msgspec.msgpack.decode(encode(message))
    names = [each.name for each in msgspec.structs.fields(message)]
    older = msgspec.msgpack.encode(fields[: 1 + names.index("request_id")])
    decoded: Any = msgspec.msgpack.decode(
        older, type=DataRequest | DataMessage if "source" not in names else wire.WireMessage
    )
    assert decoded.request_id == ""
    assert (
        msgspec.structs.replace(
            decoded, **{n: getattr(message, n) for n in ("request_id", "number", "traceparent") if n in names}
        )
        == message
    )
    newer = msgspec.msgpack.encode([*fields, "a field of a later version"])
    assert msgspec.msgpack.decode(newer, type=type(message)) == message


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n", False),
        ("x" * 60_000, False),
    ],
    ids=["a parent", "none", "a line", "long"],
)
def test_only_a_parent_of_a_span_is_passed_on(text: str, is_kept: bool) -> None:
    assert safe_traceparent(text) == (text if is_kept else "")
