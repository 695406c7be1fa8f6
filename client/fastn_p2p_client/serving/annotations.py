"""Parameters of handlers, and the types that their annotations name, for every kind of callable.

Only parameters are read. A reply is encoded as the handler returns it, so its annotation need not exist at run time.

A name in an annotation is looked up in the handler's classes, then in its module. Names that are local to a function
count too, where the handler is defined or registered there. Methods of the classes do not count: a method called
``list`` does not change the meaning of ``list[str]``.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..call_context import CallContext
from ..callables import NAMES, calling_functions, is_async, is_legacy_coroutine, layers, made_once, may_be_type, name_of
from ..peer import Peer
from ..protocol import BindingContext
from ..session.session import Session


class InvalidHandler(TypeError):
    """Handler or protocol class that cannot be called with a request or session. The message says what to change."""


class HandlerParameter(NamedTuple):
    """Parameter of a handler, and the type that its annotation names.

    ``kind`` is ``inspect.Parameter.empty`` where there is no annotation.
    """

    parameter: inspect.Parameter
    kind: Any


def handler_parameters(function: Callable[..., Any], owner: type | None = None) -> list[HandlerParameter]:
    """Return the parameters of a handler, without bound ones and without ``*arguments`` and ``**named``.

    Args:
        function: any callable.
        owner: the class whose method it is, if the callable itself does not tell.

    Raises:
        InvalidHandler: Python cannot tell the parameters, or the annotation of one without a default does not resolve.
    """
    return made_once(function, owner, "parameters", lambda: _read_parameters(function, owner))


def _read_parameters(function: Callable[..., Any], owner: type | None) -> list[HandlerParameter]:
    name = name_of(function)
    names = _AnnotationNames(function, owner)
    found: list[HandlerParameter] = []
    for each in _signature(function, name).parameters.values():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        try:
            kind = each.annotation if each.annotation is each.empty else names.resolve(each.annotation)
        except Exception as error:  # an annotation is any code
            if found and each.default is not each.empty:  # the handler can do without it
                found.append(HandlerParameter(each, each.empty))
                continue
            raise InvalidHandler(
                f"an annotation of {name} cannot be resolved: {error}. {each.name!r} is decoded to it when a request "
                "comes: it must exist then, and not only for type checkers"
            ) from error
        found.append(HandlerParameter(each, _without_optional(kind)))
    return found


def check_not_generator(function: Callable[..., Any]) -> None:
    """Raise InvalidHandler if the handler is a generator: a reply is one value."""
    for layer in layers(function, decorators=False):
        if (inspect.isgeneratorfunction(layer) and not is_legacy_coroutine(layer)) or inspect.isasyncgenfunction(layer):
            raise InvalidHandler(
                f"{name_of(function)} is a generator, and a reply is one value: return it instead of `yield`, or serve "
                "a stream, which sends as much as you like"
            )


class _AnnotationNames:
    """Namespace in which the annotations of one handler are evaluated, as far as they are text."""

    def __init__(self, function: Callable[..., Any], owner: type | None) -> None:
        every_layer = list(layers(function))
        innermost = every_layer[-1]
        module = sys.modules.get(getattr(innermost, "__module__", None) or "")
        self._globals = getattr(innermost, "__globals__", None) or (vars(module) if module else {})
        self._function = function
        self._local: dict[str, Any] = {}
        for layer in every_layer:
            self._local |= getattr(layer, NAMES, {})
        if isinstance(innermost, types.FunctionType):
            self._local |= inspect.getclosurevars(innermost).nonlocals
        owners = [getattr(layer, "__self__", None) for layer in every_layer]
        for each in (owner, *(type(it) if it is not None and not isinstance(it, type) else it for it in owners)):
            if each is not None and each not in (type(None), types.ModuleType):
                self._local |= _types_in(each)

    def resolve(self, annotation: Any) -> Any:
        """Return the type. Raises any exception that the evaluation of the annotation raises."""
        while True:
            holder = types.SimpleNamespace(__annotations__={"it": annotation})
            try:
                return typing.get_type_hints(holder, self._globals, self._local, include_extras=True)["it"]
            except NameError as error:
                if error.name is None or error.name in self._local:
                    raise
                self._local[error.name] = self._find(error.name, error)

    def _find(self, name: str, error: NameError) -> Any:
        for names in calling_functions():
            if name in names:
                return names[name]
        known = _library_types(is_async(self._function))
        if name in known:  # imported for type checkers only; the name says enough
            return known[name]
        raise error


def _types_in(owner: type) -> dict[str, Any]:
    return {name: value for cls in reversed(owner.__mro__) for name, value in vars(cls).items() if may_be_type(value)}


def _library_types(is_async: bool) -> Mapping[str, Any]:
    """Return the types of this library that handlers take. ``Session`` is the one for this kind of handler."""
    from ..session import blocking_session  # only programs that serve sessions need it

    return {
        "BindingContext": BindingContext,
        "CallContext": CallContext,
        "Peer": Peer,
        "Session": Session if is_async else blocking_session.Session,
        "sync": types.SimpleNamespace(Session=blocking_session.Session),
    }


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):  # annotations are evaluated on access
            from annotationlib import Format

            return inspect.signature(function, annotation_format=Format.FORWARDREF)
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidHandler(f"{name} does not tell its parameters: {error}. Write a function that calls it") from error


def _without_optional(kind: Any) -> Any:
    """Return ``Peer`` for ``Annotated[Peer, ...]`` and ``Peer | None``; leave other annotations as they are."""
    found = kind
    if typing.get_origin(found) is typing.Annotated:
        found = typing.get_args(found)[0]
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(found) if each is not type(None)]
        found = others[0] if len(others) == 1 else found
    return found if found in (Peer, CallContext, BindingContext) else kind
