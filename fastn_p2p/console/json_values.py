"""Values on the command line, and JSON output."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from .exit_codes import CommandLineError

_PRINT_RECURSION_LIMIT: Final = 10_000
"""Recursion limit while a reply is printed: far above the 1,000 levels that a reply can have."""
_STACK_RESERVE: Final = 200
"""Levels that stay free when a request is checked, because the client encodes it further down the stack."""
_UNITS: Final = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAX_TEXT: Final = 64 * 1024
"""Bytes of a text that is read from a file. A ticket has at most 26 KiB."""


def size_argument(text: str, option: str) -> int:
    """Return the number of an option's value. ``64K``, ``500M``, ``2G`` and ``1T`` count in steps of 1024.

    Raises:
        CommandLineError: the value is not a number.
    """
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _UNITS else (text, "")
    if not (number.isascii() and number.isdecimal()):
        raise CommandLineError(f"{option}: {text!r} is not a number. Give 500, 64K, 500M or 2G, or 0 for no limit")
    return int(number) * _UNITS.get(unit, 1)


def json_argument(text: str, option: str) -> bytes:
    """Return the bytes of an option's value, or with ``@file`` the content of the file.

    Raises:
        CommandLineError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).expanduser().read_bytes()
    except OSError as error:
        raise CommandLineError(f"{option}: cannot read {text[1:]!r}: {error.strerror}") from None


def text_argument(value: str, name: str) -> str:
    """Return the text of an argument, with ``@file`` the content of the file, with ``-`` standard input.

    White space is removed from files and standard input, because mail programs break long lines.

    Args:
        name: the name of the argument, for error messages.

    Raises:
        CommandLineError: the source cannot be read, is empty, or has more than 64 KiB.
    """
    if value == "-":
        if sys.stdin is None:
            raise CommandLineError(f"{name}: standard input is closed")
        data, source = sys.stdin.buffer.read(_MAX_TEXT + 1), "standard input"
    elif value.startswith("@"):
        source = repr(value[1:])
        try:
            with Path(value[1:]).expanduser().open("rb") as file:
                data = file.read(_MAX_TEXT + 1)
        except OSError as error:
            raise CommandLineError(f"{name}: cannot read {source}: {error.strerror}") from None
    else:
        return value
    if not data.strip():
        raise CommandLineError(f"{name}: {source} is empty")
    if len(data) > _MAX_TEXT:
        raise CommandLineError(f"{name}: {source} has more than {_MAX_TEXT} bytes")
    return "".join(data.decode("utf-8", "replace").split())


def check_text(text: str, option: str) -> None:
    """Check that an argument is UTF-8.

    Raises:
        CommandLineError: the argument has bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CommandLineError(f"{option}: {text!r} has bytes that are not UTF-8") from None


def parse_json(data: bytes, source: str) -> Any:
    """Return the value of JSON text.

    Raises:
        CommandLineError: the text is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CommandLineError(
            f"{source} is not JSON: {error}. A string needs double quotes: '\"like this\"'"
        ) from None


def request_from(data: bytes, source: str) -> Any:
    """Return the value of JSON text, and check that a request can carry it.

    Raises:
        CommandLineError: the text is not JSON, or msgpack cannot encode the value.
    """
    value = parse_json(data, source)
    try:
        with _recursion_limit(sys.getrecursionlimit() - _STACK_RESERVE):
            msgspec.msgpack.encode(value)
    except RecursionError:
        raise CommandLineError(f"{source} is nested too deeply. Send the inner part as a string") from None
    except OverflowError:
        raise CommandLineError(f"{source} has a number of more than 64 bits. Send it as a string") from None
    except UnicodeEncodeError:
        raise CommandLineError(
            f"{source} has half of a surrogate pair (\\ud800 to \\udfff) in a string. Send whole pairs"
        ) from None
    return value


def to_json(value: Any) -> bytes:
    """Return a record, or any value that msgpack can hold, as JSON on one line.

    Bytes become base64, times ISO 8601, extension types ``{"ext": code, "data": base64}``; NaN and infinities become
    null. Map keys of other types become strings: ``null``, ``true``, ``1``, or the JSON of an array. If that makes two
    keys of a map equal, the map becomes an array of pairs: ``[[1, "a"], ["1", "b"]]``.
    """
    with _recursion_limit(_PRINT_RECURSION_LIMIT):
        printable = _with_text_keys(value)
        try:
            return msgspec.json.encode(printable, enc_hook=_encode_special)
        except UnicodeEncodeError:  # the name of a file that is not UTF-8
            import json

            return json.dumps(msgspec.to_builtins(printable, enc_hook=_encode_special, str_keys=True)).encode()


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


def _encode_special(value: Any) -> Any:
    if isinstance(value, msgspec.msgpack.Ext):
        return {"ext": value.code, "data": base64.b64encode(value.data).decode()}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
