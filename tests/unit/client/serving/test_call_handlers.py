"""Handlers of single calls: commands, context, threads, and fairness between peers."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.call_context import CallContext
from fastn_p2p_client.errors import BadRequest, CommandNotFound
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.request_id import served_request_id
from fastn_p2p_client.serving.handlers import RequestHandler
from tests.support.dispatchers import KEY, DispatcherSetup, echo, typed
from tests.support.event_loop import run_pending
from tests.support.two_daemons import until


async def test_each_command_has_its_handler_and_an_unknown_one_is_an_error() -> None:
    setup = DispatcherSetup(echo)
    setup.binding.handlers["text.take"] = RequestHandler(typed)
    setup.deliver("x", command="text.take")
    assert (await setup.answer())[2] == msgspec.msgpack.encode("x")
    setup.deliver(1, command="text.take")
    assert isinstance(await setup.error(), BadRequest)
    setup.deliver(command="text.give")
    error = await setup.error()
    assert isinstance(error, CommandNotFound)
    assert error.fields() == {"peer": KEY.id52, "protocol": "Test", "command": "text.give"}
    del setup.binding.handlers[""]
    setup.deliver()
    without = await setup.error()
    assert isinstance(without, BadRequest)
    assert without.reason == "it takes no requests without a command; its commands: text.take"


async def test_a_handler_of_all_commands_gets_those_without_one_of_their_own() -> None:
    async def handle(request: str, call: CallContext) -> str:
        return f"{call.command}: {request}"

    setup = DispatcherSetup(None)
    setup.binding.handlers["text.take"] = RequestHandler(typed)
    setup.binding.handlers["*"] = RequestHandler(handle)
    for command, expected in (("text.take", "x"), ("other", "other: x"), ("", ": x")):
        setup.deliver("x", command=command)
        assert (await setup.answer())[2] == msgspec.msgpack.encode(expected)


async def test_passes_the_call_and_the_callers_path_to_the_handler() -> None:
    seen: list[Any] = []

    async def handle(request: None, call: CallContext, peer: Peer) -> None:
        seen.extend((call, peer))

    setup = DispatcherSetup(None)
    setup.binding.handlers["a.b"] = RequestHandler(handle)
    setup.deliver(
        command="a.b", call_id=b"0123456789abcdef", ms=5000, path="relayed", address="https://relay", rtt_ms=12
    )
    await setup.answer()
    call, peer = seen
    assert (call.command, call.call_id, call.cancelled) == ("a.b", b"0123456789abcdef", False)
    assert 0 < call.remaining() <= 5
    assert (peer.path, peer.address, peer.rtt_ms, peer.is_local) == ("relayed", "https://relay", 12, False)


@pytest.mark.parametrize(
    ("fields", "correlation", "expected"),
    [
        ({"request_id": "7f3a"}, b"12345678", "7f3a"),
        ({"request_id": "7f3a*"}, b"12345678" + (255).to_bytes(8, "big"), "7f3aff"),
        ({"call_id": b"\x01" * 16}, b"12345678", "01" * 16),
        ({}, b"12345678", ""),
    ],
)
async def test_the_request_id_is_in_the_context_and_in_logs_until_the_handler_ends(
    fields: dict[str, Any], correlation: bytes, expected: str
) -> None:
    seen: list[str] = []
    late = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def look_later() -> None:
        seen.append(served_request_id())
        await late.wait()
        seen.append(served_request_id())

    async def handle(request: None, call: CallContext) -> None:
        seen.extend((call.request_id, served_request_id()))
        tasks.append(asyncio.create_task(look_later()))
        await asyncio.sleep(0)

    setup = DispatcherSetup(None)
    setup.binding.handlers[""] = RequestHandler(handle)
    setup.deliver(id=correlation, **fields)
    assert (await setup.answer())[0] == correlation
    late.set()
    await tasks[0]
    assert seen == [expected, expected, expected, ""]


async def test_a_handler_in_a_thread_has_the_request_id_in_its_logs() -> None:
    seen: list[str] = []

    def handle(request: None) -> None:
        seen.append(served_request_id())

    setup = DispatcherSetup(None)
    setup.binding.handlers[""] = RequestHandler(handle)
    for request_id in ("7f3a", "7f3b"):
        setup.deliver(request_id=request_id)
        await setup.answer()
    assert seen == ["7f3a", "7f3b"]
    assert served_request_id() == ""


async def test_a_handler_in_a_thread_sees_its_cancellation_and_counts_until_it_has_ended() -> None:
    begun, let_go = threading.Event(), threading.Event()
    seen: list[CallContext] = []

    def handle(request: None, call: CallContext) -> None:
        seen.append(call)
        begun.set()
        let_go.wait(60)

    setup = DispatcherSetup(None)
    setup.binding.handlers[""] = RequestHandler(handle)
    setup.deliver(id=b"1")
    await asyncio.to_thread(begun.wait, 5)
    assert not seen[0].cancelled
    setup.dispatcher.cancel(b"1")
    await run_pending()
    assert seen[0].cancelled
    assert (setup.dispatcher.in_flight, setup.binding.in_flight) == (0, 1)
    let_go.set()
    await until(lambda: not setup.binding.in_flight, "it has ended")
    assert setup.answers.empty()


async def test_long_handlers_of_one_peer_do_not_delay_others_and_never_start_once_cancelled() -> None:
    """Each takes the loop's time, so requests that were read in the same iteration do not all start at once."""
    started: list[Any] = []

    async def long(request: Any) -> Any:
        started.append(request)
        time.sleep(0.011)  # noqa: ASYNC251 it computes: the whole loop waits
        return request

    setup = DispatcherSetup(long)
    others = bytes(32)
    for number in range(200):
        setup.deliver("many", id=b"a%d" % number, peer=others)
    setup.deliver("one", id=b"b")
    await run_pending()
    assert "one" in started
    assert len(started) < 20
    for number in range(200):
        setup.dispatcher.cancel(b"a%d" % number)
    count = len(started)
    await run_pending()
    assert len(started) == count
    assert setup.binding.in_flight == 0
    assert setup.answers.qsize() == count


class _Watched:
    """Object whose end can be observed."""


async def test_memory_of_a_cancelled_handler_is_freed_at_its_end() -> None:
    """At once, not at the next garbage collection: a caller that cancels large calls would fill the memory."""
    held: list[weakref.ref[_Watched]] = []

    async def handle(request: Any) -> Any:
        mine = _Watched()
        held.append(weakref.ref(mine))
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # a handler may clean up
            raise

    setup = DispatcherSetup(handle)
    gc.disable()
    try:
        for number in range(3):
            setup.deliver(id=bytes([number]), ms=600_000)
        await until(lambda: len(held) == 3, "the handlers run")
        for number in range(3):
            setup.dispatcher.cancel(bytes([number]))
        await until(lambda: all(each() is None for each in held), "what the handlers held is freed")
    finally:
        gc.enable()
