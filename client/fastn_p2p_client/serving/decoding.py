"""Decoders of what handlers take: the types that a request or initial data can be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import msgspec.inspect

from .annotations import InvalidHandler

__all__ = ["decoder_of"]

_PLAIN: Final = (type(None), bool, int, float, str, bytes, list, dict, datetime, msgspec.msgpack.Ext)
"""Types that msgpack decodes to before a request is converted."""


def decoder_of(kind: Any, name: str) -> Callable[[bytes], Any]:
    """The decoder of a type, for the handler of that name; ``msgspec.MsgspecError`` when something else comes.

    Raises:
        InvalidHandler: no msgpack is an instance of the type, or of a part of it.
    """
    try:
        decode = msgspec.msgpack.Decoder(kind).decode
        strange = _undecodable_in(msgspec.inspect.type_info(kind), set())
    except Exception as error:  # annotations inside of it are any code, too
        raise InvalidHandler(f"{name} takes what cannot be decoded: {error}") from error
    if strange is not None:
        raise InvalidHandler(
            f"{name} takes what cannot be decoded: {strange.__qualname__} is no Struct, dataclass, TypedDict, Enum or "
            "plain type"
        )
    return decode


def _undecodable_in(info: Any, seen: set[int]) -> type | None:
    """A class that no value of a request can be an instance of, if the type contains one."""
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
