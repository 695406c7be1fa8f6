"""Parameters of handlers and the types that their annotations name, whatever kind of callable the handler is.

Only parameters are looked at. What a handler returns is encoded as it comes, so its annotation need not exist at run
time. A name is looked up in the classes that the handler belongs to, in the functions in which it was defined or is
registered, and in its module. Methods are left out of the classes: one that is called ``list`` does not change what
``list[str]`` means.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["NAMES", "InvalidHandler", "Taken", "check_returns", "is_async", "local_names", "name_of", "taken_by"]

NAMES: Final = "__fastn_p2p_names__"
"""Attribute of a marked method: names in its annotations that exist only in the function that defines the class."""
_PACKAGE: Final = __name__.partition(".")[0]
_NAME: Final = re.compile(r"[^\W\d]\w*")
_NO_TYPES: Final = (
    bool, int, float, str, bytes, list, dict, tuple, set, property, classmethod, staticmethod,
    functools.cached_property, functools.partialmethod,
)  # fmt: skip


class InvalidHandler(TypeError):
    """A handler, or a protocol class, that nothing can be called with. Says what to change."""


class Taken(NamedTuple):
    """A parameter, and the type that its annotation names: ``inspect.Parameter.empty`` without one."""

    parameter: inspect.Parameter
    kind: Any


def taken_by(function: Callable[..., Any], owner: type | None = None) -> list[Taken]:
    """The parameters of a handler, without those that are bound and without ``*arguments`` and ``**named``.

    Args:
        owner: the class whose method it is, where that is not to be seen.

    Raises:
        InvalidHandler: they are unknown, or the annotation of one without a default cannot be resolved.
    """
    name = name_of(function)
    names = _Names(function, owner)
    found: list[Taken] = []
    for each in _signature(function, name).parameters.values():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        try:
            kind = each.annotation if each.annotation is each.empty else names.resolve(each.annotation)
        except Exception as error:  # annotations are any code
            if found and each.default is not each.empty:  # it can be left out
                found.append(Taken(each, each.empty))
                continue
            raise InvalidHandler(
                f"an annotation of {name} cannot be resolved: {error}. {each.name!r} is decoded to it when a request "
                "comes: it must exist then, and not only for type checkers"
            ) from error
        found.append(Taken(each, _without_extras(kind)))
    return found


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives an awaitable: it is ``async``, or a decorator of something that is."""
    return any(inspect.iscoroutinefunction(layer) or _is_coroutine_of_old(layer) for layer in _layers(function))


def check_returns(function: Callable[..., Any]) -> None:
    """
    Raises:
        InvalidHandler: it is a generator.
    """
    for layer in _layers(function, decorators=False):
        if (inspect.isgeneratorfunction(layer) and not _is_coroutine_of_old(layer)) or inspect.isasyncgenfunction(
            layer
        ):
            raise InvalidHandler(
                f"{name_of(function)} is a generator, and a reply is one value: return it instead of `yield`, or serve "
                "a stream, which sends as much as you like"
            )


def name_of(function: Callable[..., Any]) -> str:
    """Name of the handler in errors."""
    *_, innermost = _layers(function)
    return str(getattr(innermost, "__qualname__", None) or repr(function))


def local_names(function: Callable[..., Any]) -> dict[str, Any]:
    """Names in its annotations that are local to the functions in which it is being defined at this moment."""
    *_, innermost = _layers(function)
    texts = [each for each in getattr(innermost, "__annotations__", {}).values() if isinstance(each, str)]
    wanted = set(_NAME.findall(" ".join(texts)))
    found: dict[str, Any] = {}
    for names in _calling_functions():
        for name in wanted & names.keys():
            if _may_be_type(names[name]):  # of the class itself, methods are local names at this moment
                found.setdefault(name, names[name])
    return found


class _Names:
    """Where the names in a handler's annotations are looked up, as far as these are text."""

    def __init__(self, function: Callable[..., Any], owner: type | None) -> None:
        layers = list(_layers(function))
        innermost = layers[-1]
        module = sys.modules.get(getattr(innermost, "__module__", None) or "")
        self._globals = getattr(innermost, "__globals__", None) or (vars(module) if module else {})
        self._function = function
        self._local: dict[str, Any] = {}
        for layer in layers:
            self._local |= getattr(layer, NAMES, {})
        if isinstance(innermost, types.FunctionType):
            self._local |= inspect.getclosurevars(innermost).nonlocals
        owners = [getattr(layer, "__self__", None) for layer in layers]
        for each in (owner, *(type(it) if it is not None and not isinstance(it, type) else it for it in owners)):
            if each is not None and each not in (type(None), types.ModuleType):
                self._local |= _types_in(each)

    def resolve(self, annotation: Any) -> Any:
        """The type. Raises whatever its evaluation raises."""
        while True:
            holder = types.SimpleNamespace(__annotations__={"it": annotation})
            try:
                return typing.get_type_hints(holder, self._globals, self._local, include_extras=True)["it"]
            except NameError as error:
                if error.name is None or error.name in self._local:
                    raise
                self._local[error.name] = self._find(error.name, error)

    def _find(self, name: str, error: NameError) -> Any:
        for names in _calling_functions():
            if name in names:
                return names[name]
        known = _known_types(is_async(self._function))
        if name in known:  # imported for type checkers only, but there is no doubt about it
            return known[name]
        raise error


def _types_in(owner: type) -> dict[str, Any]:
    return {name: value for cls in reversed(owner.__mro__) for name, value in vars(cls).items() if _may_be_type(value)}


def _may_be_type(value: object) -> bool:
    return not inspect.isroutine(value) and not isinstance(value, _NO_TYPES)


def _known_types(is_async: bool) -> Mapping[str, Any]:
    """Types of this library that handlers take. ``Session`` is the one that a handler of this sort can take."""
    from .. import sync
    from ..call_context import CallContext
    from ..peer import Peer
    from ..protocol import BindingContext
    from ..session.session import Session

    return {
        "BindingContext": BindingContext,
        "CallContext": CallContext,
        "Peer": Peer,
        "Session": Session if is_async else sync.Session,
        "sync": sync,
    }


def _calling_functions() -> Iterator[Mapping[str, Any]]:
    """The local names of the functions that are running, and of the classes that are being defined, outside of this
    library; the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        outside = frame.f_globals.get("__name__", "").partition(".")[0] != _PACKAGE
        if outside and frame.f_locals is not frame.f_globals:
            yield frame.f_locals
        frame = frame.f_back


def _layers(function: Callable[..., Any], *, decorators: bool = True) -> Iterator[Any]:
    """The callable itself, and what is inside: of partials, bound methods, objects with ``__call__`` and, if wanted, of
    decorators that name what they wrap."""
    layer: Any = function
    for _ in range(100):  # one that contains itself
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


def _is_coroutine_of_old(function: Any) -> bool:
    """Return whether it was made by ``types.coroutine``."""
    code = getattr(function, "__code__", None)
    return bool(code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):  # annotations are evaluated when they are looked at
            from annotationlib import Format

            return inspect.signature(function, annotation_format=Format.FORWARDREF)
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidHandler(f"{name} does not tell its parameters: {error}. Write a function that calls it") from error


def _without_extras(kind: Any) -> Any:
    """``Peer`` for ``Annotated[Peer, ...]`` and ``Peer | None``; other annotations are left as they are."""
    from ..call_context import CallContext
    from ..peer import Peer
    from ..protocol import BindingContext

    found = kind
    if typing.get_origin(found) is typing.Annotated:
        found = typing.get_args(found)[0]
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(found) if each is not type(None)]
        found = others[0] if len(others) == 1 else found
    return found if found in (Peer, CallContext, BindingContext) else kind
