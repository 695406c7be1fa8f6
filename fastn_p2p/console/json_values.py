"""Values that people type, and JSON that commands print."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from .exit_codes import CommandLineError

_DEEP: Final = 10_000
"""Python's limit on recursion while a reply is printed: far above the 1,000 levels that were decoded at most."""
_MARGIN: Final = 200
"""Levels by which a request must be less deep than can be encoded here: the client encodes it further up the stack."""
_UNITS: Final = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAX_TEXT: Final = 64 * 1024
"""Bytes of a text that is read from a file: a ticket has 26 KiB at most."""


def size_argument(text: str, option: str) -> int:
    """The whole number that an option's value stands for; ``64K``, ``500M``, ``2G`` and ``1T`` count in steps of 1024.

    Raises:
        CommandLineError: it is none.
    """
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _UNITS else (text, "")
    if not (number.isascii() and number.isdecimal()):
        raise CommandLineError(f"{option}: {text!r} is no number: give one as 500, 64K, 500M or 2G, or 0 for no limit")
    return int(number) * _UNITS.get(unit, 1)


def json_argument(text: str, option: str) -> bytes:
    """The bytes that an option's value stands for: itself, or with ``@file`` the file's content.

    Raises:
        CommandLineError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).expanduser().read_bytes()
    except OSError as error:
        raise CommandLineError(f"{option}: cannot read {text[1:]!r}: {error.strerror}") from None


def text_argument(value: str, what: str) -> str:
    """Return the text that an argument stands for: itself; with ``@file`` what is in the file, with ``-`` what comes on
    standard input, both without white space, which mail programs break long lines with.

    Raises:
        CommandLineError: it cannot be read, is empty, or too long to be meant.
    """
    if value == "-":
        if sys.stdin is None:
            raise CommandLineError(f"{what}: standard input is closed")
        data, source = sys.stdin.buffer.read(_MAX_TEXT + 1), "standard input"
    elif value.startswith("@"):
        source = repr(value[1:])
        try:
            with Path(value[1:]).expanduser().open("rb") as file:
                data = file.read(_MAX_TEXT + 1)
        except OSError as error:
            raise CommandLineError(f"{what}: cannot read {source}: {error.strerror}") from None
    else:
        return value
    if not data.strip():
        raise CommandLineError(f"{what}: there is nothing in {source}")
    if len(data) > _MAX_TEXT:
        raise CommandLineError(f"{what}: {source} has more than {_MAX_TEXT} bytes")
    return "".join(data.decode("utf-8", "replace").split())


def check_text(text: str, option: str) -> None:
    """
    Raises:
        CommandLineError: the argument has bytes that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CommandLineError(f"{option}: {text!r} has bytes that are not UTF-8") from None


def parse_json(data: bytes, source: str) -> Any:
    """The value that ``data`` is the JSON of.

    Raises:
        CommandLineError: it is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CommandLineError(f"{source} is not JSON: {error}. A text needs double quotes: '\"like this\"'") from None


def request_from(data: bytes, source: str) -> Any:
    """The value that ``data`` is the JSON of, and that a request or initial data can be.

    Raises:
        CommandLineError: it is not JSON, or msgpack has no form for it.
    """
    value = parse_json(data, source)
    try:
        with _recursion_limit(sys.getrecursionlimit() - _MARGIN):
            msgspec.msgpack.encode(value)
    except RecursionError:
        raise CommandLineError(f"{source} is nested too deeply; send the inner part as a text") from None
    except OverflowError:
        raise CommandLineError(f"{source} has a number of more than 64 bits; send it as a text") from None
    except UnicodeEncodeError:
        raise CommandLineError(
            f"{source} has half of a surrogate pair (\\ud800 to \\udfff) in a text; send whole ones"
        ) from None
    return value


def to_json(value: Any) -> bytes:
    """``value`` as JSON on one line: records, and everything that msgpack can hold.

    Bytes are base64, times ISO 8601, extension types ``{"ext": code, "data": base64}``; NaN and infinities are null.
    Keys that are no text become one: ``null``, ``true``, ``1``, and of an array its JSON. Where that makes two keys of
    a map equal, the map is an array of pairs: ``[[1, "a"], ["1", "b"]]``.
    """
    with _recursion_limit(_DEEP):
        printable = _with_text_keys(value)
        try:
            return msgspec.json.encode(printable, enc_hook=_unusual)
        except UnicodeEncodeError:  # the name of a file that is no UTF-8
            return json.dumps(msgspec.to_builtins(printable, enc_hook=_unusual, str_keys=True)).encode()


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        found = {_key(key): _with_text_keys(each) for key, each in value.items()}
        if len(found) == len(value):
            return found
        return [[_with_text_keys(key), _with_text_keys(each)] for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [_with_text_keys(each) for each in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, float) and not math.isfinite(key):
        return "NaN" if math.isnan(key) else "Infinity" if key > 0 else "-Infinity"
    text = to_json(key).decode()
    return text[1:-1] if isinstance(key, bytes | datetime) else text


@contextmanager
def _recursion_limit(levels: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(levels)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _unusual(value: Any) -> Any:
    if isinstance(value, msgspec.msgpack.Ext):
        return {"ext": value.code, "data": base64.b64encode(value.data).decode()}
    raise TypeError(f"{type(value).__name__} has no JSON form")
