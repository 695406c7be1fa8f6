"""``HandlerRegistry``: the decorators of all four servers."""

from __future__ import annotations

from typing import Any

import pytest

from fastn_p2p_client import BindingServer, Server, sync
from fastn_p2p_client.errors import InvalidName
from fastn_p2p_client.protocol import Protocol, request
from fastn_p2p_client.serving.handler_registry import HandlerRegistry
from fastn_p2p_client.session.session import Session


async def reply(request: Any) -> Any:
    return request


async def serve(session: Session) -> None: ...


class Clock(Protocol):
    @request
    async def now(self, zone: str) -> float:
        return 0.0


SERVERS = [lambda: Server("alice"), lambda: sync.Server("alice"), BindingServer, sync.BindingServer]


@pytest.fixture(params=SERVERS, ids=["Server", "sync.Server", "BindingServer", "sync.BindingServer"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_all_servers_share_the_decorators(server: Any) -> None:
    assert isinstance(server, HandlerRegistry)
    assert server.handle_requests("Shop", reply) is reply
    assert server.handle_requests("Shop", command="stock.count")(reply) is reply
    assert server.handle_streams("Shop", serve) is serve


def test_blocking_servers_share_the_handlers_of_the_wrapped_server() -> None:
    for blocking in (sync.Server("alice"), sync.BindingServer()):
        blocking.handle_requests("Shop", reply)
        (handlers,) = blocking._serving._handlers.values()
        assert set(handlers.requests) == {""}


def test_rejects_a_second_handler_for_the_same_requests(server: Any) -> None:
    server.handle_requests("Shop", reply)
    with pytest.raises(ValueError, match=r"^Shop.* has a handler for requests already$"):
        server.handle_requests("Shop", reply)
    server.handle_requests("Shop", reply, command="stock.count")
    with pytest.raises(ValueError, match=r"has a handler for stock\.count already"):
        server.handle_requests("Shop", reply, command="stock.count")
    server.handle_streams("Shop", serve)
    with pytest.raises(ValueError, match="has a handler for sessions already"):
        server.handle_streams("Shop", serve)


def test_rejects_options_that_differ_between_handlers_of_one_protocol(server: Any) -> None:
    server.handle_requests("Shop", reply, concurrency=2)
    server.handle_requests("Shop", reply, command="one", concurrency=2, queue=5)
    server.handle_requests("Shop", reply, command="two")
    with pytest.raises(ValueError, match=r"concurrency of Shop.* is 2 already, for all its handlers"):
        server.handle_requests("Shop", reply, command="three", concurrency=3)


def test_rejects_invalid_names(server: Any) -> None:
    with pytest.raises(InvalidName):
        server.handle_requests("no protocol", reply)
    with pytest.raises(InvalidName):
        server.handle_requests("Shop", reply, command="No Command")


def test_instances_of_one_identity_are_separate() -> None:
    server = Server("alice")
    server.handle_requests("Shop", reply, access="everyone")
    server.handle_requests("Shop", reply, instance="second", access=["peers", "bob"])
    with pytest.raises(InvalidName):
        server.handle_requests("Shop", reply, instance="")
    with pytest.raises(ValueError, match="access is empty"):
        server.handle_requests("Shop", reply, instance="third", access=())
    with pytest.raises(ValueError, match=r"access of Shop \(second\) is \('peers', 'bob'\) already"):
        server.handle_streams("Shop", serve, instance="second", access="everyone")


def test_a_protocol_has_a_class_or_handlers() -> None:
    server = BindingServer()
    server.protocol(Clock)
    with pytest.raises(ValueError, match="Clock is served by Clock already"):
        server.handle_requests("Clock", reply)
    with pytest.raises(ValueError, match="Clock is served already"):
        server.protocol(Clock)
