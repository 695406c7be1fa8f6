"""Types that a request may have."""

# Type checkers warn of the code that these tests try.
# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportMissingImports=false
# pyright: reportInvalidTypeForm=false, reportUndefinedVariable=false, reportIndexIssue=false

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Annotated, Any, Generic, NewType, TypedDict, TypeVar

import msgspec
import pytest

from fastn_p2p_client import BindingServer
from fastn_p2p_client.protocol import Protocol, request
from tests.support.handlers import Question, answer, call_protocol, logged

T = TypeVar("T")


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
    assert await call_protocol(Serves, {"text": "x"}) == "x"
    assert await call_protocol(made_elsewhere(), {"number": 1}) == 1
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
