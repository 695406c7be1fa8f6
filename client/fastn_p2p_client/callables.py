"""Names, layers and kinds of callables: functions, methods, partials, decorated ones and objects with ``__call__``.

``protocol`` needs them where a method is marked as a handler, ``serving`` where it is compiled.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final, TypeVar

T = TypeVar("T")

NAMES: Final = "__fastn_p2p_names__"
"""Attribute of a marked method: names in its annotations that exist only in the function that defines the class."""
_MADE: Final = "__fastn_p2p_made__"
"""Attribute of a function: results of ``made_once``."""
_PACKAGE: Final = __name__.partition(".")[0]
_NAME: Final = re.compile(r"[^\W\d]\w*")
_MAX_LAYERS: Final = 100
"""Layers after which a callable counts as one that contains itself."""
_NO_TYPES: Final = (
    bool, int, float, str, bytes, list, dict, tuple, set, property, classmethod, staticmethod,
    functools.cached_property, functools.partialmethod,
)  # fmt: skip


def layers(function: Callable[..., Any], *, decorators: bool = True) -> Iterator[Any]:
    """Yield the callable, then what it contains, from the outside in.

    A layer is the function of a partial, of a bound, static or class method, or of an object with ``__call__``.
    With ``decorators``, it is also the function that a decorator names in ``__wrapped__``.
    """
    layer: Any = function
    for _ in range(_MAX_LAYERS):
        yield layer
        if isinstance(layer, functools.partial):
            layer = layer.func
        elif isinstance(layer, staticmethod | classmethod) or inspect.ismethod(layer):
            layer = layer.__func__
        elif decorators and callable(wrapped := getattr(layer, "__wrapped__", None)):
            layer = wrapped
        elif not inspect.isroutine(layer) and not isinstance(layer, type) and inspect.isfunction(type(layer).__call__):
            layer = type(layer).__call__
        else:
            return


def name_of(function: Callable[..., Any]) -> str:
    """Return the qualified name of the innermost layer, for error messages."""
    *_, innermost = layers(function)
    return str(getattr(innermost, "__qualname__", None) or repr(function))


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call gives an awaitable: one of the layers is an ``async`` function."""
    return any(inspect.iscoroutinefunction(layer) or is_legacy_coroutine(layer) for layer in layers(function))


def is_legacy_coroutine(function: Any) -> bool:
    """Return whether ``types.coroutine`` made the function."""
    code = getattr(function, "__code__", None)
    return bool(code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def local_names(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names in a function's annotations that are local names of the functions now running.

    Called while the function is being defined. Later these names are out of reach.
    """
    *_, innermost = layers(function)
    texts = [each for each in getattr(innermost, "__annotations__", {}).values() if isinstance(each, str)]
    wanted = set(_NAME.findall(" ".join(texts)))
    found: dict[str, Any] = {}
    for names in calling_functions():
        for name in wanted:  # from Python 3.13 on, ``names`` is no dict, and its keys are a list
            # While a class is being defined, its methods are local names too.
            if name in names and may_be_type(names[name]):
                found.setdefault(name, names[name])
    return found


def calling_functions() -> Iterator[Mapping[str, Any]]:
    """Yield the local names of each calling function and class body outside of this package, innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        outside = frame.f_globals.get("__name__", "").partition(".")[0] != _PACKAGE
        if outside and frame.f_locals is not frame.f_globals:
            yield frame.f_locals
        frame = frame.f_back


def may_be_type(value: object) -> bool:
    """Return False for routines and plain values, which no annotation names."""
    return not inspect.isroutine(value) and not isinstance(value, _NO_TYPES)


def made_once(method: Callable[..., Any], owner: type | None, what: str, make: Callable[[], T]) -> T:
    """Return what ``make`` returns, made at the first use and kept with the function of a bound method.

    All instances of a class share it, also those in processes that are forked later. For another callable it is made
    each time.

    Args:
        method: the callable.
        owner: the class whose method it is, if that is known.
        what: name of what is made.
        make: makes it.
    """
    function = getattr(method, "__func__", None)
    if not isinstance(function, types.FunctionType):
        return make()
    made: dict[Hashable, T] = function.__dict__.setdefault(_MADE, {})
    key = (what, owner, type(getattr(method, "__self__", None)))
    if key not in made:
        made[key] = make()
    return made[key]
