"""The tree of errors: one class for each code, drawn as it is, told in words, and the same after travelling."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import fastn_p2p_client
from fastn_p2p_client import errors
from fastn_p2p_client.errors import (
    CODES,
    ApplicationError,
    BadReply,
    IdentityAmbiguous,
    InternalError,
    Overloaded,
    P2PError,
    PeerUnknown,
    PeerUnreachable,
    error_from,
)
from fastn_p2p_client.ipc.messages import ErrorReply, encode

SAMPLES: dict[str, Any] = {"str": "some text", "int": 7, "float": 1.5, "list[str]": ["one", "two"]}
"""A value for each type that a field may have."""


def below(cls: type[P2PError]) -> Iterator[type[P2PError]]:
    """Yield the library's subclasses; other tests define some of their own."""
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from below(child)


def drawn() -> dict[str, str]:
    """Class → base, as the docstring draws them."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}((?:│   |    )*)(?:[├└]── )?(\w+)(?: {2,}|$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        path[depth:] = [match[2]]
        found[match[2]] = path[depth - 1] if depth else "Exception"
    return found


def fields_of(cls: type[P2PError]) -> dict[str, str]:
    return {
        name: annotation
        for each in reversed(cls.__mro__)
        for name, annotation in inspect.get_annotations(each).items()
        if issubclass(each, P2PError) and each is not P2PError
    }


def sample(cls: type[P2PError]) -> P2PError:
    return cls(**{name: SAMPLES[annotation] for name, annotation in fields_of(cls).items()})


LEAVES = sorted(CODES.values(), key=lambda cls: cls.code)
each_error = pytest.mark.parametrize("cls", LEAVES, ids=[cls.code for cls in LEAVES])


def test_the_tree_is_drawn_as_it_is() -> None:
    actual = {cls.__name__: cls.__bases__[0].__name__ for cls in (P2PError, ApplicationError, *below(P2PError))}
    assert drawn() == actual


def test_every_class_that_has_no_others_below_it_has_a_code_and_no_other_has() -> None:
    leaves = {cls for cls in below(P2PError) if not list(below(cls))}
    assert set(CODES.values()) == leaves
    assert all(not cls.code for cls in below(P2PError) if list(below(cls)))
    assert len(CODES) == len(leaves)


def test_everything_is_listed() -> None:
    classes = {cls.__name__ for cls in below(P2PError)}
    assert set(errors.__all__) == classes | {"CODES", "P2PError", "ApplicationError", "error_from", "is_transient"}
    assert errors.__all__[1:] == sorted(errors.__all__[1:])


def test_the_package_exports_every_error_that_calls_raise() -> None:
    """Errors of the command line's own affairs are in the module only."""
    exported = {name for name in fastn_p2p_client.__all__ if name in errors.__all__}
    assert {"P2PError", "ApplicationError", "UsageError", "LocalError", "RemoteError", "CredentialError"} <= exported
    assert {name for name in errors.__all__ if name.startswith(("Peer", "Deadline", "Connection"))} - exported == {
        "PeerNameTaken",
        "PeerNameUnknown",
    }


@each_error
def test_a_code_is_the_name_of_its_class(cls: type[P2PError]) -> None:
    assert cls.code == re.sub(r"(?<!^)([A-Z])", r"-\1", cls.__name__).lower()


@each_error
def test_words_tell_every_field(cls: type[P2PError]) -> None:
    error = sample(cls)
    words = str(error)
    assert words == " ".join(words.split())
    assert "{" not in words
    assert "}" not in words
    for value in error.fields().values():
        for each in value if isinstance(value, list) else [value]:
            assert str(each) in words
    assert not words.endswith(".")
    assert words[0].islower() or words[0] in "'\"" or words.startswith(str(next(iter(error.fields().values()))))


@each_error
def test_fields_are_not_used_as_templates(cls: type[P2PError]) -> None:
    fields = {
        name: "{0} {peer!r} %s" if annotation == "str" else SAMPLES[annotation]
        for name, annotation in fields_of(cls).items()
    }
    assert str(cls(**fields)).count("{0} {peer!r} %s") >= list(fields.values()).count("{0} {peer!r} %s")


@each_error
def test_fields_are_given_by_name_all_of_them_and_no_others(cls: type[P2PError]) -> None:
    error = sample(cls)
    assert error.fields() == {name: getattr(error, name) for name in fields_of(cls)}
    assert isinstance(error.retryable, bool)
    with pytest.raises(TypeError):
        cls(**{**error.fields(), "another": 1})
    for name in error.fields():
        with pytest.raises(TypeError):
            cls(**{other: value for other, value in error.fields().items() if other != name})


@each_error
def test_an_error_travels(cls: type[P2PError]) -> None:
    error = sample(cls)
    arrived = msgspec.msgpack.decode(encode(ErrorReply.of(error)), type=ErrorReply).error()
    for twin in (arrived, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert (twin.code, twin.fields(), str(twin), repr(twin)) == (cls.code, error.fields(), str(error), repr(error))


@pytest.mark.parametrize("value", [None, 7, "x", b"\xff", [None], {"a": 1}, float("nan"), -(2**63)], ids=repr)
def test_fields_that_do_not_fit_never_surface_where_the_error_is_printed(value: Any) -> None:
    for cls in LEAVES:
        error = error_from(cls.code, dict.fromkeys(fields_of(cls), value))
        assert type(error) in (cls, InternalError)
        assert str(error), cls
        assert repr(error), cls


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("no-such-code", {}),
        ("", {}),
        ("x" * 100_000, {}),
        ("peer-unknown", {}),
        ("peer-unknown", {"peer": "bob", "another": 1}),
        ("deadline-exceeded", {"seconds": "soon"}),
        ("identity-ambiguous", {"online": [1, 2]}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_unknown_codes_and_malformed_fields_become_internal_errors(code: str, fields: dict[str, Any]) -> None:
    error = error_from(code, fields)
    assert type(error) is InternalError
    assert len(str(error)) < 200
    if code:
        assert code[:64] in str(error)


def test_internal_errors_ask_to_be_reported() -> None:
    assert "report it" in str(sample(InternalError))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApplicationError("Kind", "words", {"data": 1}), "Kind: words"),
        (ApplicationError("Kind", ""), "Kind"),
    ],
)
def test_an_application_error_shows_kind_and_message(error: ApplicationError, words: str) -> None:
    assert str(error) == words
    assert not isinstance(error, P2PError)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.kind, twin.message, twin.payload) == (error.kind, error.message, error.payload)


class Excess(msgspec.Struct):
    length: int


def test_payload_as_converts_to_the_type_that_the_handler_gave() -> None:
    assert ApplicationError("TooLong", "", {"length": 7}).payload_as(Excess) == Excess(7)
    mine = Excess(7)
    assert ApplicationError("TooLong", "", mine).payload_as(Excess) is mine
    with pytest.raises(BadReply, match=r"the error TooLong is not of the expected type: .*\$\.length"):
        ApplicationError("TooLong", "", {"length": "x"}).payload_as(Excess)


def test_some_errors_are_transient_only_once_the_callee_has_answered() -> None:
    at_once = {"ConnectionLost", "DaemonBusy", "Overloaded", "StreamReset"}
    afterwards = {
        "DaemonNotRunning", "DelegationExpired", "DelegationNotYetValid", "HandlerFailed", "HomeAway",
        "IdentityOffline", "InstanceNotFound", "NoIdentityOnline", "OwnerAway", "PeerOffline", "ProtocolNotFound",
        "StorageUnavailable",
    }  # fmt: skip

    def transient(connected_before: bool) -> set[str]:
        samples = (cls.__new__(cls) for cls in errors.CODES.values())
        return {type(each).__name__ for each in samples if errors.is_transient(each, connected_before)}

    assert transient(False) == at_once
    assert transient(True) == at_once | afterwards


@pytest.mark.parametrize("peer", ["bob", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"])
def test_the_command_that_tells_more_is_left_out_for_itself(peer: str) -> None:
    unreachable, unknown = PeerUnreachable(peer=peer, reason="no answer"), PeerUnknown(peer=peer)
    see = f" See each step: fastn-p2p explain {peer}"
    assert str(unreachable) == unreachable.statement() + see
    assert str(unknown) == unknown.statement() + (see if peer != "bob" else "")
    assert "explain" not in unknown.statement() + unreachable.statement()
    assert str(Overloaded(what="calls", limit=1)) == Overloaded(what="calls", limit=1).statement()


def test_ambiguity_among_ten_thousand_identities_is_a_short_text() -> None:
    error = IdentityAmbiguous.among(f"id{number:05}" for number in reversed(range(10_000)))
    assert str(error).startswith("several identities are online: id00000, id00001,")
    assert str(error).endswith(", id00015 and more. Name one of them: --as NAME")
    assert len(encode(ErrorReply.of(error))) < 1024
    assert str(IdentityAmbiguous.among(["bob", "alice"])) == (
        "several identities are online: alice, bob. Name one of them: --as NAME"
    )
