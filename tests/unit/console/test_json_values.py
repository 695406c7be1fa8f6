"""JSON output: every value that msgpack can hold, on one line and without loss."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.console.exit_codes import CommandLineError
from fastn_p2p.console.json_values import request_from, to_json

EXT = msgspec.msgpack.Ext(5, b"x")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ({None: 1}, {"null": 1}),
        ({True: 1, False: 2}, {"true": 1, "false": 2}),
        ({1: 1, -2: 2, 1.5: 3}, {"1": 1, "-2": 2, "1.5": 3}),
        ({(1, None): 3}, {"[1,null]": 3}),
        ({((1,), b"x"): 3}, {'[[1],"eA=="]': 3}),
        ({b"x": 1}, {"eA==": 1}),
        ({TIME: 1}, {"2026-01-02T03:04:05Z": 1}),
        ({float("nan"): 1, float("inf"): 2, float("-inf"): 3}, {"NaN": 1, "Infinity": 2, "-Infinity": 3}),
        ([{"a": {False: 0}}], [{"a": {"false": 0}}]),
        ({1: "a", "1": "b"}, [[1, "a"], ["1", "b"]]),
        ({None: {}, "null": 2}, [[None, {}], ["null", 2]]),
        ([float("nan"), float("inf")], [None, None]),
        ([b"x", TIME, EXT], ["eA==", "2026-01-02T03:04:05Z", {"ext": 5, "data": "eA=="}]),
        (2**64 - 1, 2**64 - 1),
        ("a\nb\u2028", "a\nb\u2028"),
    ],
)
def test_converts_values_that_json_has_not(value: Any, printed: Any) -> None:
    line = to_json(msgspec.msgpack.decode(msgspec.msgpack.encode(value)))
    assert json.loads(line) == printed
    assert b"\n" not in line


leaves = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
    | st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
)  # fmt: skip
keys = st.recursive(leaves, lambda inner: st.tuples(inner) | st.tuples(inner, inner), max_leaves=4)
values = st.recursive(
    leaves | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary()),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@given(values)
def test_every_msgpack_value_is_one_line_of_json(value: Any) -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    line = to_json(decoded)
    assert b"\n" not in line
    printed = json.loads(line)
    if isinstance(decoded, dict):
        assert len(printed) == len(decoded)


@pytest.mark.parametrize("kind", [b"\x91", b"\x81\xa1a", b"\x81\x01"])
def test_the_deepest_reply_that_can_be_decoded_can_be_printed(kind: bytes) -> None:
    for depth in range(1000, 0, -50):
        try:
            deepest = msgspec.msgpack.decode(kind * depth + b"\xc0")
        except RecursionError:
            continue
        assert to_json(deepest).count(b"[" if kind == b"\x91" else b"{") == depth
        return
    raise AssertionError("nothing could be decoded")


@pytest.mark.parametrize(
    "data",
    [
        b"1" + 30 * b"0",
        b'{"a": [-99999999999999999999]}',
        b"{",
        b'"\\ud800"',
        2000 * b"[",
        100_000 * b"[" + 100_000 * b"]",
    ],
)
def test_a_request_that_cannot_be_sent_is_refused(data: bytes) -> None:
    with pytest.raises(CommandLineError, match=r"^--data "):
        request_from(data, "--data")


def test_the_deepest_request_that_is_taken_can_be_sent() -> None:
    for depth in range(1000, 0, -50):
        text = depth * b"[" + depth * b"]"
        try:
            assert msgspec.msgpack.encode(request_from(text, "--data")) == (depth - 1) * b"\x91" + b"\x90"
        except CommandLineError:
            continue
        return
    raise AssertionError("nothing could be sent")
