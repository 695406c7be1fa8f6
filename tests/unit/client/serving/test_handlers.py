"""Handlers are compiled by their annotations; a function that cannot be a handler is rejected with the reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.errors import InvalidKey, InvalidName
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer import from_fields
from fastn_p2p_client.protocol import (
    BindingContext,
    NoConfig,
    Peer,
    Protocol,
    request,
    request_handlers,
    stream,
    stream_handlers,
)
from fastn_p2p_client.serving.annotations import InvalidHandler
from fastn_p2p_client.serving.handlers import RequestHandler, StreamHandler
from fastn_p2p_client.session.session import Session

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


class Question(msgspec.Struct):
    text: str
    times: int = 1


class Two(msgspec.Struct):
    number: int


@dataclasses.dataclass
class Plain:
    text: str


class Start(msgspec.Struct, tag=True):
    pass


class Stop(msgspec.Struct, tag=True):
    code: int


async def takes_struct(request: Question) -> str:
    return request.text


async def takes_peer(request: Question, peer: Peer) -> str:
    return f"{peer}: {request.text}"


async def takes_dataclass(request: Plain) -> None: ...


async def takes_union(request: Start | Stop) -> None: ...


async def takes_anything(request: Any) -> None: ...


async def takes_nothing() -> None: ...


async def not_annotated(request) -> None: ...  # type: ignore[no-untyped-def]


async def takes_more(request: Question, more: int) -> None: ...


async def two_peers(request: Question, one: Peer, two: Peer) -> None: ...


async def wants_context(request: Question, context: BindingContext) -> None: ...


async def keywords(*, request: Question) -> None: ...


async def undecodable(request: Question | Two) -> None: ...


async def unresolvable(request: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def test_decodes_the_request_to_its_annotation() -> None:
    assert RequestHandler(takes_struct).decode(pack({"text": "hi"})) == Question("hi")
    assert RequestHandler(takes_dataclass).decode(pack({"text": "hi"})) == Plain("hi")
    assert RequestHandler(takes_union).decode(pack({"type": "Stop", "code": 3})) == Stop(3)
    assert RequestHandler(takes_anything).decode(pack([1, {"a": None}])) == [1, {"a": None}]


def test_checks_the_request_strictly_and_names_the_field() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.times"):
        RequestHandler(takes_struct).decode(pack({"text": "hi", "times": "2"}))
    with pytest.raises(msgspec.ValidationError, match="`text`"):
        RequestHandler(takes_struct).decode(pack({}))


def test_passes_the_peer_to_handlers_that_take_it() -> None:
    assert RequestHandler(takes_peer).extras == (Peer,)
    assert RequestHandler(takes_struct).extras == ()


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (takes_nothing, "first positional"),
        (not_annotated, "annotate 'request'"),
        (takes_more, "one `Peer`"),
        (wants_context, "add-protocol IDENTITY --protocol NAME --program"),
        (two_peers, "one `Peer`"),
        (keywords, "first positional"),
        (undecodable, "cannot be decoded"),
        (unresolvable, "Missing"),
    ],
)
def test_rejects_functions_that_cannot_be_handlers(function: Any, what: str) -> None:
    with pytest.raises(InvalidHandler, match=what):
        RequestHandler(function)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def takes_session(session: Session) -> None: ...


async def takes_initial(session: Session, initial: Question) -> None: ...


async def takes_any_initial(session: Session, initial: Any = None) -> None: ...


def stream_not_async(session: Session) -> None: ...


async def session_not_first(initial: Question, session: Session) -> None: ...


async def session_not_annotated(session) -> None: ...  # type: ignore[no-untyped-def]


async def initial_not_annotated(session: Session, initial) -> None: ...  # type: ignore[no-untyped-def]


async def takes_the_peer_too(session: Session, initial: Question, peer: Peer) -> None: ...


async def session_by_keyword(*, session: Session) -> None: ...


async def initial_undecodable(session: Session, initial: Question | Two) -> None: ...


async def initial_unresolvable(session: Session, initial: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_a_stream_handler_takes_initial_data_or_none() -> None:
    assert StreamHandler(takes_session).decode is None
    decode = StreamHandler(takes_initial).decode
    assert decode is not None
    assert decode(pack({"text": "x"})) == Question("x")
    with pytest.raises(msgspec.ValidationError):
        decode(pack({"text": 7}))
    decode = StreamHandler(takes_any_initial).decode
    assert decode is not None
    assert decode(pack([1, "x"])) == [1, "x"]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (stream_not_async, "async def"),
        (takes_nothing, "first positional"),
        (session_not_first, "takes a `Session` first"),
        (session_not_annotated, "takes a `Session` first"),
        (takes_struct, "takes a `Session` first"),
        (initial_not_annotated, "annotate 'initial'"),
        (takes_the_peer_too, "the initial data"),
        (session_by_keyword, "first positional"),
        (initial_undecodable, "cannot be decoded"),
        (initial_unresolvable, "Missing"),
    ],
)
def test_rejects_functions_that_cannot_serve_sessions(function: Any, what: str) -> None:
    with pytest.raises(InvalidHandler, match=what):
        StreamHandler(function)


# ── protocols ────────────────────────────────────────────────────────────────────────────────────


class Base(Protocol):
    class Config(msgspec.Struct):
        greeting: str = "hello"

    config: Config

    class Ask(msgspec.Struct):
        name: str

    @request
    async def greet(self, request: Ask, peer: Peer) -> str:
        return f"{self.config.greeting} {request.name}"


class Derived(Base):
    @request
    async def greet(self, request: Base.Ask, peer: Peer) -> str:
        return (await super().greet(request, peer)).upper()


class TwoHandlers(Base):
    @request
    async def other(self, request: int) -> int:
        return request


class NoHandlers(Protocol):
    pass


def context(config: object) -> BindingContext:
    return BindingContext("alice", KEY, "Test", "default", Path("/nowhere"), config)


@pytest.mark.parametrize(("cls", "reply"), [(Base, "hello you"), (Derived, "HELLO YOU")])
async def test_handler_of_a_protocol_sees_its_config_and_nested_types(cls: type[Base], reply: str) -> None:
    handler = RequestHandler.of_protocol(cls(context(Base.Config())))
    assert handler is not None
    asked = handler.call(handler.decode(pack({"name": "you"})), from_fields(bytes(KEY), ""))
    assert await asked == reply


def test_protocol_has_one_request_handler_or_none() -> None:
    assert RequestHandler.of_protocol(NoHandlers(context(NoConfig()))) is None
    assert request_handlers(Derived) == {"": ["greet"]}
    with pytest.raises(InvalidHandler, match=r"several request handlers: other, greet"):
        RequestHandler.of_protocol(TwoHandlers(context(Base.Config())))


class Both(Base):
    @stream
    async def talk(self, session: Session, first: Base.Ask) -> None: ...


class TwoStreams(Both):
    @stream
    async def sing(self, session: Session) -> None: ...


def test_protocol_has_one_stream_handler_or_none() -> None:
    assert StreamHandler.of_protocol(Base(context(Base.Config()))) is None
    both = Both(context(Base.Config()))
    handler = StreamHandler.of_protocol(both)
    assert handler is not None
    assert handler.decode is not None
    assert handler.decode(pack({"name": "you"})) == Base.Ask("you")
    assert RequestHandler.of_protocol(both) is not None
    assert stream_handlers(Both) == ["talk"]
    with pytest.raises(InvalidHandler, match=r"several stream handlers: sing, talk"):
        StreamHandler.of_protocol(TwoStreams(context(Base.Config())))


async def test_hooks_do_nothing_unless_overridden() -> None:
    code = NoHandlers(context(NoConfig()))
    for hook in ("check", "create", "activate", "reload", "deactivate", "delete"):
        assert await getattr(code, f"on_{hook}")() is None


def test_peer_has_a_key_and_perhaps_a_name() -> None:
    assert str(from_fields(bytes(KEY), "bob")) == "bob"
    assert from_fields(bytes(KEY), "") == Peer(KEY, None)
    assert str(from_fields(bytes(KEY), "")) == KEY.id52
    with pytest.raises(InvalidKey):
        from_fields(b"short", "")


class Commands(Base):
    @request("names.greet")
    def greet_by_name(self, name: str, context: BindingContext) -> str:
        return f"{self.config.greeting} {name} from {context.identity}"


class Doubled(Commands):
    @request("names.greet")
    async def again(self, name: str) -> None: ...


def test_a_protocol_has_one_handler_for_each_command() -> None:
    handlers = RequestHandler.from_protocol(Commands(context(Base.Config())))
    assert sorted(handlers) == ["", "names.greet"]
    assert handlers["names.greet"].extras == (BindingContext,)
    with pytest.raises(InvalidHandler, match=r"several handlers of 'names.greet': again, greet_by_name"):
        RequestHandler.from_protocol(Doubled(context(Base.Config())))
    with pytest.raises(InvalidName, match="words with dots"):
        request("Not A Command")


def test_instances_of_a_protocol_share_what_annotations_mean_and_subclasses_do_not() -> None:
    class First(Protocol):
        @request
        async def answer(self, request: int) -> int:
            return request

    class Second(First):
        pass

    context = BindingContext("alice", KEY, "First", "default", Path(), None, None)

    def decoder(cls: type[Protocol]) -> Any:
        instance = object.__new__(cls)
        instance.context = context
        return RequestHandler.from_protocol(instance)[""].decode

    assert decoder(First) is decoder(First)
    assert decoder(Second) is decoder(Second)
    assert decoder(First) is not decoder(Second)
