"""Public API: every name is listed, documented and typed, and no other name is exported."""

from __future__ import annotations

import ast
import inspect
import itertools
import pkgutil
import pydoc
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, assert_type

import pytest

import fastn_p2p_client
from fastn_p2p_client import (
    ApplicationError,
    BindingServer,
    Client,
    Server,
    Session,
    call,
    chat,
    connect,
    errors,
    listen,
    mail,
    protocol,
    serve_all,
    sync,
    testing,
)
from fastn_p2p_client.admin import group_admin, identity_admin, invitation_admin, peer_admin, protocol_admin
from fastn_p2p_client.mail import sync as mail_sync
from fastn_p2p_client.protocol import BindingContext, CallContext, Peer, Protocol, request, stream
from fastn_p2p_client.sync import _admin

ADMINISTRATION = [
    (identity_admin.IdentityAdmin, _admin.IdentityAdmin),
    (protocol_admin.ProtocolAdmin, _admin.ProtocolAdmin),
    (peer_admin.PeerAdmin, _admin.PeerAdmin),
    (group_admin.GroupAdmin, _admin.GroupAdmin),
    (invitation_admin.InvitationAdmin, _admin.InvitationAdmin),
]
"""Classes that administer the daemon, each with its blocking twin."""
PUBLIC_MODULES = [fastn_p2p_client, errors, protocol, sync, testing, mail, mail_sync, chat]


PLUMBING = {"abort", "fail", "on_message", "request_route", "set_peer"}
"""Methods of sessions for dispatchers and the bridge of workers, which use async sessions only."""


def public_names(module: types.ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def test_the_package_exports_exactly_its_list() -> None:
    exported = fastn_p2p_client.__all__
    for name in exported:
        assert getattr(fastn_p2p_client, name) is not None  # most are imported at their first use
    assert public_names(fastn_p2p_client) == set(exported)
    assert exported == sorted(exported)
    assert len(exported) == len(set(exported))


def test_the_package_docstring_names_every_module() -> None:
    layout = (fastn_p2p_client.__doc__ or "").split("Layout\n------\n\n")[1]
    assert len(layout.splitlines()) <= 15
    for found in pkgutil.iter_modules(fastn_p2p_client.__path__):
        assert f"``{found.name}``" in layout


def test_pydoc_shows_exactly_the_exported_names() -> None:
    shown = pydoc.plain(pydoc.render_doc(fastn_p2p_client))
    classes = set(re.findall(r"^    class (\w+)\(", shown, re.MULTILINE))
    functions = set(re.findall(r"^    (?:async )?(\w+)\(", shown.partition("\nFUNCTIONS\n")[2], re.MULTILINE))
    assert classes | functions == set(fastn_p2p_client.__all__)


def exported_things() -> Iterator[tuple[str, Any]]:
    for module in PUBLIC_MODULES:
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)
    for twins in ADMINISTRATION:  # what a client has as properties
        for cls in twins:
            yield f"{cls.__module__}.{cls.__name__}", cls


def members(cls: type) -> dict[str, Any]:
    """Return the members of a class, with those that it inherits from classes of this package."""
    bases = [base for base in reversed(cls.__mro__) if base.__module__.startswith("fastn_p2p_client")]
    return {name: value for base in bases for name, value in vars(base).items()}


def callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function and method that is exported."""
    for name, thing in exported_things():
        if inspect.isroutine(thing):
            yield name, thing
        elif inspect.isclass(thing) and not issubclass(thing, BaseException):
            for attribute, value in members(thing).items():
                function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                made = getattr(function, "__module__", "") == "typing"  # of a typing.Protocol
                if inspect.isfunction(function) and not made and (attribute[0] != "_" or attribute == "__init__"):
                    yield f"{name}.{attribute}", function


def test_everything_is_documented() -> None:
    for name, thing in exported_things():
        if inspect.isclass(thing) and issubclass(thing, BaseException):
            assert f" {thing.__name__}" in (errors.__doc__ or ""), name  # the tree says what each of them is
        elif inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, name


def test_every_function_is_documented_and_typed() -> None:
    for name, function in callables():
        if not name.endswith("__init__"):
            assert function.__doc__, name
        hints = typing.get_type_hints(function)
        assert "return" in hints, name
        parameters = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
        assert set(parameters) <= set(hints), name


def documented() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Every function and method that describes itself, with its docstring. Blocking twins refer to another one."""
    for name, function in callables():
        cls, _, attribute = name.rpartition(".")
        text = inspect.getdoc(function) or ""
        if text.startswith("As ``") or attribute in PLUMBING or cls.endswith(("Conformance", "Session.__init__")):
            continue
        if cls.endswith("Admin"):
            if attribute == "__init__":
                continue  # programs get them from a client
            text = f"{inspect.getdoc(pydoc.locate(cls))}\n{text}"
        elif attribute == "__init__":
            if "__dataclass_fields__" in vars(pydoc.locate(cls)) or cls.endswith(".Session"):
                continue  # its fields say it; programs open no session by themselves
            text = f"{inspect.getdoc(pydoc.locate(cls))}\n{text}"
        yield name, function, text


def entry(text: str, parameter: str) -> str:
    """Return the lines about a parameter in the docstring; the whole text if a sentence has its name."""
    found = re.search(rf"(?m)^ *(?:\w+, )*{parameter}(?:, \w+)*: .*(?:\n {{8,}}.*)*", text)
    return found[0] if found else text if f"``{parameter}``" in text else ""


def test_docstrings_describe_each_argument_and_times_in_seconds() -> None:
    for name, function, text in documented():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name not in ("self", "cls") and parameter.kind is not parameter.VAR_KEYWORD:
                assert entry(text, parameter.name), f"{name}: {parameter.name}"
                if parameter.annotation in ("float", "float | None"):
                    assert "second" in entry(text, parameter.name), f"{name}: {parameter.name}"


def test_docstrings_name_the_errors_that_the_function_itself_raises() -> None:
    for name, function, text in documented():
        raised = set(re.findall(r"raise (?:errors\.)?([A-Z]\w+)", inspect.getsource(inspect.unwrap(function))))
        for error in raised - {"StopIteration", "StopAsyncIteration", "InternalError"}:
            assert error in text, f"{name}: {error}"


def fields() -> Iterator[tuple[str, str, bool]]:
    """Every field of an exported struct or dataclass, and whether a text behind it or the docstring says what it is."""
    for name, thing in exported_things():
        if inspect.isclass(thing) and not issubclass(thing, BaseException) and hasattr(thing, "__match_args__"):
            lines = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0].body  # type: ignore[attr-defined]
            for line, after in itertools.zip_longest(lines, lines[1:]):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    own = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    yield f"{name}.{line.target.id}", line.target.id, own or line.target.id in str(thing.__doc__)


def test_every_field_is_documented() -> None:
    for name, field, is_documented in fields():
        assert field.startswith("_") or is_documented, name


# ── the blocking twins ───────────────────────────────────────────────────────────────────────────

ENTERING = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
ATTRIBUTES = {"bytes_read", "bytes_written", "instance", "protocol"}


def described(function: Callable[..., Any]) -> list[tuple[object, ...]]:
    return [
        (each.name, each.kind, each.default, str(each.annotation).replace("_async.", ""))
        for each in inspect.signature(function).parameters.values()
    ]


def methods(cls: type) -> dict[str, Any]:
    kept = {"__init__", *ENTERING, *ENTERING.values()}
    return {name: value for name, value in members(cls).items() if not name.startswith("_") or name in kept}


def function_of(member: Any) -> Any:
    """The one behind a property, or the method itself."""
    return member.fget if isinstance(member, property) else member


def test_the_blocking_client_has_the_same_members() -> None:
    ours = {ENTERING.get(name, name) for name in methods(Client)} | {"home"}
    assert set(methods(sync.Client)) == ours


@pytest.mark.parametrize("name", [name for name in methods(Client) if name != "home"])
def test_methods_of_the_blocking_client_take_the_same(name: str) -> None:
    awaited = function_of(members(Client)[name])
    blocking = function_of(vars(sync.Client)[ENTERING.get(name, name)])
    assert described(blocking) == described(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    returned = [str(inspect.signature(each).return_annotation) for each in (awaited, blocking)]
    assert returned[0] == returned[1]


@pytest.mark.parametrize(("awaiting", "blocking"), ADMINISTRATION)
def test_methods_that_administer_the_daemon_take_the_same(awaiting: type, blocking: type) -> None:
    assert set(methods(awaiting)) == set(methods(blocking))
    for name in set(methods(awaiting)) - {"__init__"}:
        twins = vars(awaiting)[name], vars(blocking)[name]
        assert described(twins[0]) == described(twins[1])
        assert len({inspect.signature(each).return_annotation for each in twins}) == 1
        assert not inspect.iscoroutinefunction(twins[1])


def test_the_blocking_session_has_the_same_members() -> None:
    ours = {ENTERING.get(name, name) for name in methods(Session)} - PLUMBING | ATTRIBUTES
    assert set(methods(sync.Session)) == ours


@pytest.mark.parametrize("name", sorted(set(methods(Session)) - PLUMBING - {"__init__"}))
def test_methods_of_the_blocking_session_take_the_same(name: str) -> None:
    awaited = function_of(members(Session)[name])
    blocking = function_of(vars(sync.Session)[ENTERING.get(name, name)])
    assert described(blocking) == described(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    returned = [str(inspect.signature(each).return_annotation) for each in (awaited, blocking)]
    assert returned[0].replace("AsyncIterator", "Iterator") == returned[1]


def test_the_blocking_mail_client_has_the_same_members() -> None:
    assert set(methods(mail_sync.MailClient)) == {ENTERING.get(name, name) for name in methods(mail.MailClient)}


@pytest.mark.parametrize("name", [name for name in methods(mail.MailClient) if name != "__init__"])
def test_methods_of_the_blocking_mail_client_take_the_same(name: str) -> None:
    awaited, blocking = vars(mail.MailClient)[name], vars(mail_sync.MailClient)[ENTERING.get(name, name)]
    assert described(blocking) == described(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    returned = [str(inspect.signature(each).return_annotation) for each in (awaited, blocking)]
    assert returned[0].replace("AsyncIterator", "Iterator") == returned[1]


@pytest.mark.parametrize(("awaited", "blocking"), [(Server, sync.Server), (BindingServer, sync.BindingServer)])
def test_the_blocking_servers_have_the_same_members(awaited: type, blocking: type) -> None:
    ours, theirs = ({name for each in cls.__mro__[:-1] for name in methods(each)} for cls in (awaited, blocking))
    assert theirs == ours
    for name in ours:
        assert described(getattr(blocking, name)) == described(getattr(awaited, name)) or name == "serve"
        overloads = [list(map(described, typing.get_overloads(getattr(cls, name)))) for cls in (awaited, blocking)]
        assert overloads[0] == overloads[1]
    assert not inspect.iscoroutinefunction(blocking.serve)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("awaited", "blocking"),
    [(call, sync.call), (connect, sync.connect), (listen, sync.listen), (serve_all, sync.serve_all)],
)
def test_the_functions_are_the_same_too(awaited: Callable[..., Any], blocking: Callable[..., Any]) -> None:
    assert described(blocking) == described(awaited)
    assert inspect.iscoroutinefunction(awaited) == (awaited in (call, connect))
    assert not inspect.iscoroutinefunction(blocking)


@pytest.mark.parametrize(("awaited", "blocking"), [(call, sync.call), (Client.call, sync.Client.call)])
def test_overloads_are_the_same(awaited: Callable[..., Any], blocking: Callable[..., Any]) -> None:
    ours, theirs = typing.get_overloads(awaited), typing.get_overloads(blocking)
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert described(one) == described(other)


async def _types(client: Client, blocking: sync.Client) -> None:
    """Never called: type checkers read it."""
    assert_type(await call("alice", "bob", "Echo", returns=int), int)
    assert_type(await call("alice", "bob", "Echo", request={}), Any)
    assert_type(await client.call(None, "bob", "Echo", returns=dict[str, int]), dict[str, int])
    assert_type(sync.call("alice", "bob", "Echo", returns=str), str)
    assert_type(blocking.call("alice", "bob", "Echo"), Any)
    assert_type(blocking.call("alice", fastn_p2p_client.PublicKey(b""), "Echo", returns=bool), bool)
    assert_type(await connect("alice", "bob", "FileTransfer"), Session)
    assert_type(sync.connect("alice", "bob", "FileTransfer"), sync.Session)
    assert_type(blocking.connect("alice", "bob", "FileTransfer").read(), bytes)


# ── handlers: what decorators give back is what they were given ──────────────────────────────────

server, everywhere, blocking_server = Server("alice"), BindingServer(), sync.Server("alice")


@server.handle_requests("Shop", access="everyone")
async def price(request: dict[str, int], peer: Peer) -> int:
    return sum(request.values())


@server.handle_requests("Shop", command="stock.count")
def count(request: str, call: CallContext) -> list[float]:
    return [call.remaining()]


@server.handle_streams("Shop")
async def send(session: Session, size: int) -> None:
    await session.write(bytes(size))


@everywhere.handle_requests("Clock")
async def clock(request: None, context: BindingContext) -> str:
    return context.identity


@blocking_server.handle_streams("Shop")
def send_blocking(session: sync.Session) -> None:
    session.write(b"x")


@everywhere.protocol
class Settings(Protocol):
    @request
    async def get(self, name: str, peer: Peer) -> bytes:
        return name.encode()

    @request("settings.set")
    def put(self, value: int) -> str:
        return str(value)

    @stream
    async def follow(self, session: Session) -> None: ...


async def _types_of_handlers(settings: Settings, peer: Peer, call: CallContext, error: ApplicationError) -> None:
    """Never called: type checkers read it."""
    assert_type(await price({}, peer), int)
    assert_type(count("", call), list[float])
    assert_type(await clock(None, settings.context), str)
    assert_type(await settings.get("x", peer), bytes)
    assert_type(settings.put(1), str)
    assert_type(Settings, type[Settings])
    assert_type(peer.rtt_ms, int | None)
    assert_type(call.call_id, bytes)
    assert_type(error.payload_as(dict[str, int]), dict[str, int])
    assert_type(await server.handle_requests("Shop", clock)(None, settings.context), str)
    async with testing.serve(Settings) as contact:
        assert_type(await contact.call("x", returns=bytes), bytes)
        assert_type(await contact.call("x", command="settings.set"), Any)
        assert_type(await contact.connect(), Session)
