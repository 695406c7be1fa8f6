"""Messages of the local protocol: each belongs to a conversation, and decodes to the same value."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.ipc import messages
from fastn_p2p_client.ipc.messages import UNDECODABLE, Message, Record, encode

UNIONS = {
    name: set(typing.get_args(getattr(messages, name)))
    for name in ("ControlRequest", "ControlReply", "DataRequest", "DataMessage")
}
CLASSES = [cls for _, cls in inspect.getmembers(messages, inspect.isclass)]
MESSAGES = [cls for cls in CLASSES if issubclass(cls, Message) and cls is not Message]
RECORDS = [cls for cls in CLASSES if issubclass(cls, Record) and cls is not Record]


def sample(kind: Any) -> Any:
    """A value of the type that is not the field's default."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(next(each for each in arguments if each is not type(None)))
    if origin is list:
        return [sample(arguments[0])]
    if origin is tuple:
        return tuple(sample(each) for each in arguments if each is not ...)
    if origin is dict:
        return {"key": sample(arguments[1]) if arguments[1] is not Any else 1}
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        return kind(**{field.name: sample(field.type) for field in msgspec.structs.fields(kind)})
    return {str: "text", int: 7, float: 0.5, bool: True, bytes: b"\0\xff"}[kind]


def test_tags_are_unique() -> None:
    tags = [cls.__struct_config__.tag for cls in MESSAGES]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, int) and 0 <= tag < 128 for tag in tags)  # one byte


def test_every_message_belongs_to_a_conversation() -> None:
    assert set.union(*UNIONS.values()) == set(MESSAGES)


def test_both_directions_have_error_replies_and_cancel() -> None:
    for name in ("ControlReply", "DataMessage", "DataRequest"):
        assert messages.ErrorReply in UNIONS[name]
    for name in ("ControlRequest", "DataRequest", "DataMessage"):
        assert messages.Cancel in UNIONS[name]


def test_the_package_has_everything_that_its_modules_list() -> None:
    modules = [
        importlib.import_module(f"{messages.__name__}.{found.name}")
        for found in pkgutil.iter_modules(messages.__path__)
    ]
    assert len(modules) > 5
    for module in modules:
        for name in module.__all__:
            assert getattr(messages, name) is getattr(module, name)


def test_every_control_request_names_its_reply() -> None:
    for cls in UNIONS["ControlRequest"] - {messages.Cancel}:
        assert cls.reply_type in UNIONS["ControlReply"], cls


def test_records_are_a_part_of_some_message() -> None:
    schema = msgspec.json.schema_components(MESSAGES)[1]
    in_payloads = {messages.BindingInfo.__name__}  # of which there may be more than fit a header
    assert {record.__name__ for record in RECORDS} - set(schema) == in_payloads


def test_a_message_travels() -> None:
    for cls in MESSAGES:
        message = sample(cls)
        header = encode(message)
        for name, union in UNIONS.items():
            if cls in union:
                assert msgspec.msgpack.decode(header, type=getattr(messages, name)) == message
            else:
                with pytest.raises(UNDECODABLE):
                    msgspec.msgpack.decode(header, type=getattr(messages, name))


def test_a_message_is_an_array_with_its_tag_first() -> None:
    for cls in MESSAGES:
        plain = msgspec.msgpack.decode(encode(sample(cls)))
        assert isinstance(plain, list), cls
        assert plain[0] == cls.__struct_config__.tag, cls
        assert len(plain) == 1 + len(cls.__struct_fields__), cls


def test_a_message_does_not_change() -> None:
    for cls in MESSAGES:
        message = sample(cls)
        assert hasattr(cls, "__match_args__"), cls
        for name in cls.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(message, name, None)


def test_a_message_of_a_later_version_may_have_more() -> None:
    for cls in MESSAGES:
        message = sample(cls)
        longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(encode(message)), "more"])
        assert msgspec.msgpack.decode(longer, type=cls) == message


def test_a_record_is_a_map_and_may_have_more() -> None:
    for cls in RECORDS:
        record = sample(cls)
        plain = msgspec.msgpack.decode(encode(record))
        assert isinstance(plain, dict), cls
        assert msgspec.convert({**plain, "more": 1}, cls) == record


@pytest.mark.parametrize("name", UNIONS)
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x7f",
        b"\x91\xa1x",
        b"\x80",
        b"\x91" * 5000,
        b"\x92\x0a\xa1\xff",
        b"\x93\x00\xa1x\xc0",
    ],
    ids=["nothing", "never used", "no tag", "no such tag", "text tag", "a map", "deep", "not UTF-8", "a wrong type"],
)
def test_garbage_is_undecodable(name: str, garbage: bytes) -> None:
    """Callers need to catch no other exception."""
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(garbage, type=getattr(messages, name))
