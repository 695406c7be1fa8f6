"""Every kind of method is served as a handler of its protocol, or rejected with the reason."""

# Type checkers warn of the code that these tests try.
# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportInvalidTypeForm=false, reportUndefinedVariable=false, reportIndexIssue=false

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fastn_p2p_client import BindingServer, HandlerFailed, sync
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.protocol import CallContext, Protocol, request, stream
from fastn_p2p_client.serving.handlers import InvalidHandler
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import serve

if TYPE_CHECKING:
    from nowhere import Ghost

    from fastn_p2p_client.protocol import BindingContext

from tests.support.handlers import call_protocol, logged


async def prefixed(prefix: str, text: str) -> str:
    return prefix + text


class Callable:
    async def __call__(self, text: str) -> str:
        return text


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
    assert await call_protocol(Names, ["x"], name) == ["x", name]


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
    called = request("called")(staticmethod(functools.partial(prefixed, "f")))
    callable = request("callable")(Callable())


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
    assert await call_protocol(code, request_, command) == reply
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
        await call_protocol(code, {"text": "x"})


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
        await call_protocol(code)
    for server in (BindingServer(), sync.BindingServer()):
        with pytest.raises(InvalidHandler, match=reason):
            server.protocol(code)


def test_rejects_a_mark_on_objects_that_cannot_have_one() -> None:
    with pytest.raises(TypeError, match="cannot be marked"):
        request(5)
    with pytest.raises(TypeError, match="handler of a request already"):
        stream(request(prefixed))
