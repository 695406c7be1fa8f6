"""A handler that takes a ``ForwardedCall`` passes calls on: their answers, errors and ends are those of any handler."""

from __future__ import annotations

import asyncio
import time

import pytest

from fastn_p2p_client.claims.call_claims import Outcome
from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, HandlerFailed, PayloadTooLarge
from fastn_p2p_client.ipc.messages import ApplicationErrorReply, ErrorReply, Reply, encode
from fastn_p2p_client.limits import MAX_HEADER, MAX_PAYLOAD
from fastn_p2p_client.serving.annotations import InvalidHandler
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.forwarded_call import ForwardedCall
from fastn_p2p_client.serving.handlers import RequestHandler
from tests.support.dispatchers import KEY, DispatcherSetup
from tests.support.event_loop import run_pending

REPLY = encode(Reply())


class Forwarding(DispatcherSetup):
    """Dispatcher with a handler that passes calls on, and the calls that it has got."""

    def __init__(self) -> None:
        super().__init__(None, serve=False)
        self.calls: list[ForwardedCall] = []
        self.futures: list[asyncio.Future[Outcome]] = []
        self.error_of_forward: Exception | None = None

        def forward(call: ForwardedCall) -> asyncio.Future[Outcome]:
            if self.error_of_forward is not None:
                raise self.error_of_forward
            self.calls.append(call)
            self.futures.append(asyncio.get_running_loop().create_future())
            return self.futures[-1]

        self.binding = ServedBinding("alice", KEY, "Test", "default", {"*": RequestHandler(forward)})
        self.dispatcher.add(self.binding)


async def test_a_call_and_its_answer_pass_unchanged() -> None:
    setup = Forwarding()
    setup.deliver(b"not msgpack \xc1", id=b"12345678\x2a", command="list", request_id="abc*", traceparent="00-1-2-01")
    (call,) = setup.calls
    assert (call.payload, call.message.command, call.message.traceparent) == (b"not msgpack \xc1", "list", "00-1-2-01")
    assert call.request_id == "abc2a"
    assert 0 < call.remaining() <= 60
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 1
    setup.futures[0].set_result((encode(ApplicationErrorReply("Full", "no")), b"\xc1"))
    assert await setup.answer() == (b"12345678\x2a", ApplicationErrorReply("Full", "no"), b"\xc1")
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_errors_are_those_of_any_handler() -> None:
    setup = Forwarding()
    setup.deliver()
    setup.futures[0].set_exception(ConnectionLost(what="the worker"))
    assert isinstance(await setup.error(), ConnectionLost)
    setup.deliver()
    setup.futures[1].set_exception(ValueError("a secret"))
    error = await setup.error()
    assert isinstance(error, HandlerFailed)
    assert error.reason == "ValueError"
    setup.deliver()
    setup.futures[2].set_result((REPLY, bytes(MAX_PAYLOAD + 1)))
    assert isinstance(await setup.error(), PayloadTooLarge)
    for number, header in enumerate((b"\xc1", encode(ErrorReply("x" * MAX_HEADER))), start=3):
        setup.deliver()
        setup.futures[number].set_result((header, b""))
        assert isinstance(await setup.error(), HandlerFailed), "an answer that is none is not sent"
    setup.deliver()
    setup.futures[5].cancel()
    assert isinstance(await setup.error(), HandlerFailed)
    setup.error_of_forward = ConnectionLost(what="the binding")
    setup.deliver()
    assert isinstance(await setup.error(), ConnectionLost)
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_a_cancelled_call_has_no_answer_and_its_future_is_cancelled() -> None:
    setup = Forwarding()
    setup.deliver()
    setup.dispatcher.cancel(b"1")
    await run_pending()
    assert setup.futures[0].cancelled()
    assert setup.answers.empty()
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_the_future_is_cancelled_at_the_deadline() -> None:
    setup = Forwarding()
    setup.deliver(ms=1)
    assert isinstance(await setup.error(), DeadlineExceeded)
    await run_pending()
    assert setup.futures[0].cancelled()
    assert setup.binding.in_flight == 0


async def test_an_answer_after_the_deadline_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Forwarding()
    setup.deliver()
    setup.futures[0].set_result((REPLY, b"\xc0"))
    late = setup.calls[0].deadline + 1
    monkeypatch.setattr(time, "monotonic", lambda: late)
    assert isinstance(await setup.error(), DeadlineExceeded)


async def test_a_retried_call_is_passed_on_once() -> None:
    setup = Forwarding()
    for id in (b"1", b"2"):
        setup.deliver(id=id, call_id=b"c" * 16)
    assert len(setup.calls) == 1
    setup.futures[0].set_result((REPLY, b"\x01"))
    assert {(await setup.answer())[0], (await setup.answer())[0]} == {b"1", b"2"}
    setup.deliver(id=b"3", call_id=b"c" * 16, attempt=1)
    assert await setup.answer() == (b"3", Reply(), b"\x01")
    assert len(setup.calls) == 1


async def test_draining_waits_for_calls_that_were_passed_on() -> None:
    setup = Forwarding()
    setup.deliver()
    draining = asyncio.create_task(setup.dispatcher.drain(50))
    await run_pending()
    assert not draining.done()
    setup.futures[0].set_result((REPLY, b"\xc0"))
    assert await draining
    assert isinstance((await setup.answer())[1], Reply)


def test_such_a_handler_takes_nothing_else() -> None:
    def forward(call: ForwardedCall, more: int) -> asyncio.Future[Outcome]:
        raise AssertionError

    with pytest.raises(InvalidHandler):
        RequestHandler(forward)
