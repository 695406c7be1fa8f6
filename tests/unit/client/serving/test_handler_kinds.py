"""Every kind of callable is served as a handler, or rejected at registration with the reason."""

# What is tested here is what type checkers warn of.
# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportInvalidTypeForm=false, reportUndefinedVariable=false, reportIndexIssue=false

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, TypedDict, TypeVar

import msgspec
import pytest

from fastn_p2p_client import ApplicationError, BindingServer, HandlerFailed, Server, sync
from fastn_p2p_client.errors import Denied, P2PError
from fastn_p2p_client.protocol import CallContext, Peer, Protocol, request, stream
from fastn_p2p_client.serving.handlers import InvalidHandler, RequestHandler, StreamHandler
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import ANONYMOUS_PEER, serve

if TYPE_CHECKING:
    from nowhere import Ghost

    from fastn_p2p_client.protocol import BindingContext
    from fastn_p2p_client.sync import Session as OnlyForCheckers

T = TypeVar("T")
Handler = Callable[..., Any]


class Question(msgspec.Struct):
    text: str


def logged(function: Handler) -> Handler:
    """Decorate a coroutine function with a plain function."""

    @functools.wraps(function)
    def inner(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return inner


def awaited(function: Handler) -> Handler:
    @functools.wraps(function)
    async def inner(*arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    return inner


async def answer(function: Handler, request: Any = None, *extras: Any) -> Any:
    handler = RequestHandler(function)
    return await handler.call(handler.decode(msgspec.msgpack.encode(request)), *extras)


# ── as functions ─────────────────────────────────────────────────────────────────────────────────


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


# ── what they take ───────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Data:
    text: str


class Dictionary(TypedDict):
    text: str


class Box(msgspec.Struct, Generic[T]):
    text: T


class Word(enum.Enum):
    X = "x"


Text = NewType("Text", str)


@pytest.mark.parametrize(
    ("kind", "request_", "decoded"),
    [
        (Question, {"text": "x"}, Question("x")),
        (Data, {"text": "x"}, Data("x")),
        (Dictionary, {"text": "x"}, {"text": "x"}),
        (Box[str], {"text": "x"}, Box("x")),
        (Word, "x", Word.X),
        (Text, "x", "x"),
        (Annotated[str, msgspec.Meta(max_length=3)], "x", "x"),
        (typing.Optional[Question], None, None),  # noqa: UP045
        (Question | None, {"text": "x"}, Question("x")),
        (object, [1], [1]),
        ("typing.Any", [1], [1]),
        ("list['Question']", [{"text": "x"}], [Question("x")]),
        (None, None, None),
    ],
)
async def test_types_that_a_request_may_have(kind: Any, request_: Any, decoded: Any) -> None:
    async def handle(request: Any) -> Any:
        return request

    handle.__annotations__["request"] = kind
    assert await answer(handle, request_) == decoded


async def test_types_that_are_local_to_a_function() -> None:
    class Local(msgspec.Struct):
        text: str

    async def handle(request: Local) -> str:
        return request.text

    class Serves(Protocol):
        @request
        async def ask(self, request: Local) -> str:
            return request.text

    assert await answer(handle, {"text": "x"}) == "x"
    assert await ask(Serves, {"text": "x"}) == "x"
    assert await ask(made_elsewhere(), {"number": 1}) == 1
    server = BindingServer()
    server.handle_requests("Test", handle)
    server.protocol(made_elsewhere())


def made_elsewhere() -> type[Protocol]:
    class Local(msgspec.Struct):
        number: int

    class Serves(Protocol):
        @request
        @logged
        async def ask(self, request: Local) -> int:
            return request.number

    return Serves


# ── as methods of a protocol ─────────────────────────────────────────────────────────────────────


async def ask(code: type[Protocol], request: Any = None, command: str = "") -> Any:
    async with serve(code) as contact:
        return await contact.call(request, command=command)


class Names(Protocol):
    """Methods named like types, like attributes of ``Protocol``, and otherwise."""

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self.dict = {"not": "the handler"}

    @request("list")
    async def list(self, words: list[str]) -> list[str]:
        return [*words, "list"]

    @request("str")
    async def str(self, words: list[str]) -> Any:
        return [*words, "str"]

    @request("dict")
    async def dict(self, words: list[str]) -> Any:
        return [*words, "dict"]

    @request("public")
    async def public(self, words: list[str]) -> Any:
        return [*words, "public"]

    @request("context")
    async def context(self, words: list[str]) -> Any:
        return [*words, "context"]


@pytest.mark.parametrize("name", ["list", "str", "dict", "public", "context"])
async def test_a_method_may_have_any_name(name: str) -> None:
    assert await ask(Names, ["x"], name) == ["x", name]


def test_a_method_called_public_does_not_make_the_protocol_public() -> None:
    from fastn_p2p_client.protocol import effective_access

    assert effective_access(Names, ()) == ("peers",)


class Base(Protocol):
    class Ask(msgspec.Struct):
        text: str

    @request
    async def ask(self, request: Ask) -> str:
        return f"base {request.text}"

    @request("other")
    async def other(self, request: str) -> str:
        return f"other {request}"

    @stream
    async def talk(self, session: Session) -> None:
        await session.write(b"base")


class Inherits(Base):
    pass


class Overrides(Base):
    async def ask(self, request: Base.Ask) -> str:
        return "over " + await super().ask(request)

    async def talk(self, session: Session) -> None:
        await session.write(b"over")


class MarksAnew(Base):
    @request("renamed")
    async def ask(self, request: Base.Ask) -> str:
        return "anew " + await super().ask(request)


class Removes(Base):
    ask = None


class OverridesInAThread(Base):
    def ask(self, request: Base.Ask) -> str:
        return "thread"


class Mixed(OverridesInAThread, Overrides):
    pass


class Decorated(Protocol):
    @request
    @logged
    async def ask(self, _: None) -> str:
        return "a"

    @logged
    @request("inside")
    async def inside(self, _: None) -> str:
        return "b"

    @request("one")
    @request("two")
    async def both(self, _: None, call: CallContext) -> str:
        return call.command

    @request("static")
    @staticmethod
    async def static(_: None) -> str:
        return "c"

    @staticmethod
    @request("static.inside")
    async def static_inside(_: None) -> str:
        return "d"

    @request("class")
    @classmethod
    async def of_class(cls, _: None) -> str:
        return cls.__name__

    @classmethod
    @request("class.inside")
    def of_class_inside(cls, _: None) -> str:
        return cls.__name__

    async def _say(self, word: str, _: None) -> str:
        return word

    partial = request("partial")(functools.partialmethod(_say, "e"))
    called = request("called")(functools.partial(partially, "f"))
    callable = request("callable")(Async())


@pytest.mark.parametrize(
    ("code", "command", "request_", "reply"),
    [
        (Inherits, "", {"text": "x"}, "base x"),
        (Overrides, "", {"text": "x"}, "over base x"),
        (Overrides, "other", "x", "other x"),
        (MarksAnew, "renamed", {"text": "x"}, "anew base x"),
        (Removes, "other", "x", "other x"),
        (OverridesInAThread, "", {"text": "x"}, "thread"),
        (Mixed, "", {"text": "x"}, "thread"),
        (Decorated, "", None, "a"),
        (Decorated, "inside", None, "b"),
        (Decorated, "one", None, "one"),
        (Decorated, "two", None, "two"),
        (Decorated, "static", None, "c"),
        (Decorated, "static.inside", None, "d"),
        (Decorated, "class", None, "Decorated"),
        (Decorated, "class.inside", None, "Decorated"),
        (Decorated, "partial", None, "e"),
        (Decorated, "called", "x", "fx"),
        (Decorated, "callable", "x", "x"),
    ],
)
async def test_serves_every_kind_of_method(code: type[Protocol], command: str, request_: Any, reply: Any) -> None:
    assert await ask(code, request_, command) == reply
    BindingServer().protocol(code)


@pytest.mark.parametrize(("code", "said"), [(Inherits, b"base"), (Overrides, b"over"), (MarksAnew, b"base")])
async def test_streams_are_inherited_and_overridden(code: type[Protocol], said: bytes) -> None:
    async def scenario() -> bytes:
        async with serve(code) as contact, await contact.connect() as session:
            return b"".join([part async for part in session])

    assert await scenario() == said


@pytest.mark.parametrize("code", [MarksAnew, Removes])
async def test_a_subclass_can_remove_a_handler(code: type[Protocol]) -> None:
    with pytest.raises(P2PError, match="without a command"):
        await ask(code, {"text": "x"})


class TakesAGhost(Protocol):
    @request
    async def ask(self, ghost: Ghost) -> None: ...


class TwoForOne(Base):
    @request
    async def again(self, _: None) -> None: ...


class Streams(Protocol):
    @stream
    async def ask(self, session: Session) -> AsyncIterator[bytes]:
        yield b""


@pytest.mark.parametrize(
    ("code", "reason"),
    [(TakesAGhost, "'Ghost' is not defined"), (TwoForOne, "several request handlers"), (Streams, "is a generator")],
)
async def test_rejects_a_class_with_a_handler_that_cannot_be_called(code: type[Protocol], reason: str) -> None:
    with pytest.raises(HandlerFailed, match=reason):
        await ask(code)
    for server in (BindingServer(), sync.BindingServer()):
        with pytest.raises(InvalidHandler, match=reason):
            server.protocol(code)


def test_rejects_a_mark_on_objects_that_cannot_have_one() -> None:
    with pytest.raises(TypeError, match="cannot be marked"):
        request(5)
    with pytest.raises(TypeError, match="handler of a request already"):
        stream(request(partially))


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
    StreamHandler(function)


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


# ── what they return and raise ───────────────────────────────────────────────────────────────────


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class OfTheProgram(P2PError):
    code = "of-the-program"
    reason: str


class Stricter(Denied):
    extra: int


class Exits(BaseException):
    pass


class Fails(Protocol):
    """Returns or raises the object in ``what``."""

    what: Any = None

    @request
    async def ask(self, _: None) -> Any:
        return self._do()

    @request("thread")
    def ask_in_a_thread(self, _: None) -> Any:
        return self._do()

    @stream
    async def talk(self, session: Session) -> None:
        self._do()
        raise TypeError

    def _do(self) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


UNSENDABLE: list[Any] = [
    object(), 1 << 70, {1: {2: 1 + 2j}}, "\ud800", (each for each in "x"), nested(5000),
    Unspeakable(), Exits(), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(),
    asyncio.CancelledError(),
    OfTheProgram(reason="x"), ApplicationError("Odd", "", object()), ApplicationError(Unspeakable(), ""),
    ExceptionGroup("several", [ValueError()]), RecursionError(), MemoryError(),
]  # fmt: skip


@pytest.mark.parametrize("what", UNSENDABLE, ids=lambda each: type(each).__name__)
async def test_an_object_that_cannot_be_sent_is_an_error_of_the_handler(
    what: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fails, "what", what)
    async with serve(Fails) as contact:
        for command in ("", "thread"):
            with pytest.raises(HandlerFailed):
                await contact.call(None, command=command, timeout=60)
        with pytest.raises(HandlerFailed):
            await contact.connect(timeout=60)


async def test_a_subclass_of_a_p2p_error_is_sent_as_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fails, "what", Stricter(peer="p", protocol="Fails", instance="i", extra=1))
    with pytest.raises(Denied) as caught:
        await ask(Fails)
    assert type(caught.value) is Denied
