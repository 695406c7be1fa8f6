"""Echo, through ``testing.serve``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p.protocols.echo import Echo
from fastn_p2p_actors.installed_protocols import check_installed, installed, load
from fastn_p2p_client.errors import ApplicationError, InvalidConfig, ProtocolNotInstalled
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.serving.handlers import RequestHandler
from fastn_p2p_client.serving.protocol_lifecycle import config_of

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


def echo(message: str, **config: int) -> Any:
    context = BindingContext("alice", KEY, "Echo", "default", Path("/nowhere"), Echo.Config(**config))
    handler = RequestHandler.of_protocol(Echo(context))
    assert handler is not None
    request = handler.decode(msgspec.msgpack.encode({"message": message}))
    return msgspec.to_builtins(asyncio.run(handler.call(request)))


def test_echo_returns_the_message() -> None:
    assert echo("Hello from Alice") == {"echoed": "Echo: Hello from Alice"}
    assert echo("ü" * 1000)["echoed"] == "Echo: " + "ü" * 1000


@pytest.mark.parametrize(("message", "kind"), [("", "MessageEmpty"), ("x" * 4, "MessageTooLong")])
def test_echo_refuses_with_the_numbers(message: str, kind: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        echo(message, max_length=3)
    assert caught.value.kind == kind
    assert caught.value.payload == {"length": len(message), "max_length": 3}


def test_echo_is_for_everyone_and_found_by_its_entry_point() -> None:
    assert Echo.public
    assert "Echo" in installed()
    assert check_installed("Echo").value == "fastn_p2p.protocols.echo:Echo"
    assert load("Echo") is Echo
    for code in ("fastn_p2p.protocols.echo:Echo", "no.such.module:Echo", "fastn_p2p.protocols.echo:Gone"):
        assert load("Echo", code) is Echo
    with pytest.raises(ProtocolNotInstalled) as caught:
        load("Nope", "no.such.module:Nope")
    assert "Echo" in caught.value.installed


def test_config_of_echo_is_checked() -> None:
    assert config_of(Echo, "Echo", b"") == Echo.Config(max_length=1000)
    assert config_of(Echo, "Echo", b'{"max_length": 7}') == Echo.Config(max_length=7)
    for text, reason in (
        (b'{"max_length": 0}', "max_length"),
        (b'{"max_length": "7"}', "max_length"),
        (b'{"maximum": 7}', "maximum"),
        (b"[]", "array"),
        (b"{", "truncated"),
        (b'{"max_length": 1.5}', "max_length"),
        (b"[" * 100_000, "array"),
    ):
        with pytest.raises(InvalidConfig, match=reason):
            config_of(Echo, "Echo", text)
