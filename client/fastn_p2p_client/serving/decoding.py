"""Decoders of requests and initial data, made from the types in handlers' annotations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import msgspec.inspect

from .annotations import InvalidHandler

_PLAIN: Final = (type(None), bool, int, float, str, bytes, list, dict, datetime, msgspec.msgpack.Ext)
"""Types to which msgspec decodes msgpack before it converts a request."""


def make_decoder(kind: Any, name: str) -> Callable[[bytes], Any]:
    """Return a function that decodes msgpack to a type and raises ``msgspec.MsgspecError`` where it does not fit.

    Args:
        kind: the type that the handler's annotation names.
        name: the handler's name, for error messages.

    Raises:
        InvalidHandler: no msgpack decodes to the type, or to a part of it.
    """
    try:
        decode = msgspec.msgpack.Decoder(kind).decode
        unsupported = _undecodable_in(msgspec.inspect.type_info(kind), set())
    except Exception as error:  # annotations of the type's fields are any code, too
        raise InvalidHandler(f"{name} takes what cannot be decoded: {error}") from error
    if unsupported is not None:
        raise InvalidHandler(
            f"{name} takes what cannot be decoded: {unsupported.__qualname__} is no Struct, dataclass, TypedDict, Enum "
            "or plain type"
        )
    return decode


def _undecodable_in(info: Any, seen: set[int]) -> type | None:
    """Return a class of which no decoded value is an instance, if the type contains one."""
    if isinstance(info, msgspec.inspect.CustomType):
        return None if any(_is_subclass(plain, info.cls) for plain in _PLAIN) else info.cls
    if isinstance(info, list | tuple):
        parts = info
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))
        parts = [getattr(info, name) for name in info.__struct_fields__ if name not in ("default", "default_factory")]
    else:
        return None
    return next((found for part in parts if (found := _undecodable_in(part, seen)) is not None), None)


def _is_subclass(plain: type, cls: Any) -> bool:
    try:
        return issubclass(plain, cls)
    except TypeError:  # a generic class
        return False
