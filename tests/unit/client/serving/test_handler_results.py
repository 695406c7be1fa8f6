"""Objects that a handler returns or raises and that cannot be sent."""

# Type checkers warn of the code that these tests try.
# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportInvalidTypeForm=false, reportUndefinedVariable=false, reportIndexIssue=false

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastn_p2p_client import ApplicationError, HandlerFailed
from fastn_p2p_client.errors import Denied, P2PError
from fastn_p2p_client.protocol import Protocol, request, stream
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import serve
from tests.support.handlers import call_protocol


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
    object(), 1 << 70, {1: {2: 1 + 2j}}, "\ud800", (each for each in "x"), nested(100_000),
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
        await call_protocol(Fails)
    assert type(caught.value) is Denied
