"""Every kind of callable is served as a handler, or rejected at registration with the reason."""

# Type checkers warn of the code that these tests try.
# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportInvalidTypeForm=false, reportUndefinedVariable=false, reportIndexIssue=false

from __future__ import annotations

import asyncio
import contextlib
import functools
import types
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from fastn_p2p_client import BindingServer, Server, callables, sync
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.serving.handlers import InvalidHandler, RequestHandler, StreamHandler
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import ANONYMOUS_PEER

if TYPE_CHECKING:
    from nowhere import Ghost

    from fastn_p2p_client.protocol import BindingContext
    from fastn_p2p_client.sync import Session as OnlyForCheckers

from tests.support.handlers import Handler, answer, awaited, logged


async def plain(text: str) -> str:
    return text


def in_thread(text: str) -> str:
    return text


def hands_on(text: str) -> Awaitable[str]:
    return plain(text)


def as_task(text: str) -> asyncio.Future[str]:
    return asyncio.ensure_future(plain(text))


as_task.__wrapped__ = plain


async def returns_a_ghost(text: str) -> Ghost:
    return text


async def positional_only(text: str, /) -> str:
    return text


async def with_defaults(text: str, more: int = 1, other: Ghost = None) -> str:
    return f"{text}{more - 1 or ''}"


async def with_anything(text: str, *arguments: int, **named: Ghost) -> str:
    return text


async def partially(prefix: str, text: str) -> str:
    return prefix + text


@types.coroutine
def of_old(text: str) -> Iterator[Any]:
    yield from asyncio.sleep(0).__await__()
    return text


class Blocking:
    def __call__(self, text: str) -> str:
        return text


class Async:
    async def __call__(self, text: str) -> str:
        return text

    async def method(self, text: str) -> str:
        return text

    @classmethod
    async def of_class(cls, text: str) -> str:
        return text

    @staticmethod
    async def static(text: str) -> str:
        return text


SERVED: list[Handler] = [
    plain, in_thread, hands_on, as_task, returns_a_ghost, positional_only, with_defaults, with_anything, of_old,
    functools.partial(partially, ""), functools.partial(functools.partial(partially), ""),
    functools.partial(with_defaults, more=1), logged(plain), awaited(plain), logged(logged(awaited(plain))),
    logged(in_thread), logged(functools.partial(plain)), functools.lru_cache(in_thread), Blocking(), Async(),
    Async().method, Async.of_class, Async().of_class, Async.static, functools.partial(Async()), logged(Async().method),
]  # fmt: skip


@pytest.mark.parametrize("function", SERVED)
async def test_serves_every_kind_of_callable(function: Handler) -> None:
    assert await answer(function, "x") == "x"


async def peer_by_name(text: str, *, peer: Peer) -> str:
    return f"{text} {peer}"


async def peer_after_a_default(text: str, more: int = 1, peer: Peer | None = None) -> str:
    return f"{text} {peer}"


async def annotated_peer(text: str, peer: Annotated[Peer, "who calls"]) -> str:
    return f"{text} {peer}"


def peer_in_a_thread(text: str, more: int = 1, *, peer: Peer) -> str:
    return f"{text} {peer}"


async def peer_after_a_context(text: str, context: BindingContext | None = None, peer: Peer | None = None) -> str:
    return f"{text} {context or peer}"


async def peer_after_a_ghost(text: str, ghost: Ghost = None, peer: Peer | None = None) -> str:
    return f"{text} {ghost or peer}"


@pytest.mark.parametrize(
    "function",
    [
        peer_by_name,
        peer_after_a_default,
        annotated_peer,
        peer_in_a_thread,
        peer_after_a_context,
        peer_after_a_ghost,
        logged(peer_by_name),
    ],
)
async def test_passes_the_peer_to_every_kind_of_parameter(function: Handler) -> None:
    assert await answer(function, "x", ANONYMOUS_PEER) == f"x {ANONYMOUS_PEER}"


def yields(text: str) -> Iterator[str]:
    yield text


async def yields_async(text: str) -> AsyncIterator[str]:
    yield text


async def takes_a_ghost(ghost: Ghost) -> None: ...


async def takes_nonsense(text: str) -> None: ...


takes_nonsense.__annotations__["text"] = "not a type"


async def takes_what_is_no_type(text: 5) -> None: ...


class Custom:
    pass


class Contains(msgspec.Struct):
    inside: list[dict[str, Custom]]


class Unfinished(msgspec.Struct):
    inside: Ghost


async def takes_custom(custom: Custom) -> None: ...


async def takes_what_contains_custom(request: Contains) -> None: ...


async def takes_unfinished(request: Unfinished) -> None: ...


async def peer_first(peer: Peer, text: str) -> None: ...


async def only_arguments(*arguments: str) -> None: ...


class Empty:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (yields, "generator.* `yield`"),
        (yields_async, "generator.* `yield`"),
        (functools.partial(yields), "yields is a generator"),
        (takes_a_ghost, "'Ghost' is not defined.*not only for type checkers"),
        (takes_nonsense, "cannot be resolved"),
        (takes_what_is_no_type, "Type '5' is not supported"),
        (takes_custom, "Custom is no Struct"),
        (takes_what_contains_custom, "Custom is no Struct"),
        (takes_unfinished, "cannot be decoded.*Ghost"),
        (peer_first, "the request as its first parameter"),
        (only_arguments, "first positional parameter"),
        (Empty(), "first positional parameter"),
        (lambda text: text, "no lambda can"),
        (functools.partial(plain, "x"), "first positional parameter"),
        (dict.update, "parameter"),
        (min, "does not tell its parameters"),
        (5, "parameter"),
        (contextlib.contextmanager(yields), None),
    ],
)
def test_rejects_callables_that_cannot_be_handlers(function: Any, reason: str | None) -> None:
    if reason is None:
        RequestHandler(function)
        return
    for register in (
        RequestHandler,
        lambda each: Server("alice").handle_requests("Test", each),
        lambda each: sync.Server("alice").handle_requests("Test", each),
        lambda each: BindingServer().handle_requests("Test", each),
    ):
        with pytest.raises(InvalidHandler, match=reason):
            register(function)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def converse(session: Session, initial: str = "", *, loud: bool = False) -> None: ...


def in_a_thread(session: sync.Session, initial: str) -> None: ...


def with_types_for_checkers(session: sync.Session, context: BindingContext | None = None) -> None: ...


def only_for_checkers(session: OnlyForCheckers) -> None: ...


async def with_the_peer(session: Session, peer: Peer) -> None: ...


@pytest.mark.parametrize(
    "function", [converse, logged(converse), functools.partial(converse), in_a_thread, with_types_for_checkers]
)
def test_serves_sessions_with_every_kind_of_callable(function: Handler) -> None:
    StreamHandler(function)  # does not raise


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (only_for_checkers, "OnlyForCheckers"),
        (with_the_peer, "knows its peer"),
        (yields, "generator"),
        (lambda session: None, "async def"),
        (takes_a_ghost, "Ghost"),
    ],
)
def test_rejects_callables_that_cannot_serve_sessions(function: Handler, reason: str) -> None:
    for register in (
        StreamHandler,
        lambda each: Server("alice").handle_streams("Test", each),
        lambda each: BindingServer().handle_streams("Test", each),
    ):
        with pytest.raises(InvalidHandler, match=reason):
            register(function)


class LocalNames(Mapping[str, Any]):
    """Local names of a function as Python 3.13 has them: no dict, and the keys are a list."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> Any:
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def keys(self) -> Any:
        return list(self._names)


def test_annotations_find_local_names_of_newer_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Order) -> None: ...  # noqa: F821

    monkeypatch.setattr(callables, "calling_functions", lambda: iter([LocalNames({"Order": int, "other": str})]))
    assert callables.local_names(handler) == {"Order": int}
