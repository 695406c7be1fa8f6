"""JSON that people type, and JSON that commands print."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec

from .exits import Misused

__all__ = ["as_json", "json_argument", "parsed"]


def json_argument(text: str, option: str) -> bytes:
    """The bytes that an option's value stands for: itself, or with ``@file`` the file's content.

    Raises:
        Misused: the file cannot be read.
    """
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).expanduser().read_bytes()
    except OSError as error:
        raise Misused(f"{option}: cannot read {text[1:]!r}: {error.strerror}") from None


def parsed(data: bytes, source: str) -> Any:
    """The value that ``data`` is the JSON of.

    Raises:
        Misused: it is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misused(f"{source} is not JSON: {error}. A text needs double quotes: '\"like this\"'") from None


def as_json(value: Any) -> bytes:
    """``value`` as JSON on one line."""
    try:
        return msgspec.json.encode(value, enc_hook=_unusual)
    except UnicodeEncodeError:  # the name of a file that is no UTF-8
        return json.dumps(msgspec.to_builtins(value, enc_hook=_unusual, str_keys=True)).encode()


def _unusual(value: Any) -> Any:
    if isinstance(value, msgspec.msgpack.Ext):
        return {"ext": value.code, "data": base64.b64encode(value.data).decode()}
    raise TypeError(f"{type(value).__name__} has no JSON form")
