"""``Dispatcher``: every way in which a handler can end, and the answer that the caller gets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.errors import (
    ApplicationError,
    BadMessage,
    BadRequest,
    DeadlineExceeded,
    HandlerFailed,
    InstanceNotFound,
    InvalidKey,
    Overloaded,
    PayloadTooLarge,
    PeerOffline,
    PeerUnknown,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import ApplicationErrorReply, Reply
from fastn_p2p_client.limits import MAX_HEADER, MAX_PAYLOAD
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.serving.handlers import RequestHandler
from tests.support.dispatchers import KEY, DispatcherSetup, echo, raising, returning, typed
from tests.support.event_loop import run_pending


async def test_sends_the_reply_under_the_correlation_id_of_the_request() -> None:
    setup = DispatcherSetup(echo)
    setup.deliver({"n": 1}, id=b"first")
    setup.deliver({"n": 2}, id=b"second")
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 2
    for id, n in ((b"first", 1), (b"second", 2)):
        assert await setup.answer() == (id, Reply(), msgspec.msgpack.encode({"n": n}))
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_passes_the_caller_to_the_handler() -> None:
    seen: list[Peer] = []

    async def handle(request: int, peer: Peer) -> None:
        seen.append(peer)

    setup = DispatcherSetup(None)
    setup.binding.handlers[""] = RequestHandler(handle)
    setup.deliver(1)
    await setup.answer()
    setup.deliver(1, petname="")
    await setup.answer()
    assert seen == [Peer(KEY, "bob"), Peer(KEY, None)]
    setup.deliver(1, peer=b"no key")
    assert isinstance(await setup.error(), InvalidKey)


async def test_application_error_keeps_kind_message_and_payload() -> None:
    setup = DispatcherSetup(raising(ApplicationError("TooLong", "it is too long", {"length": 7})))
    setup.deliver()
    _, answer, payload = await setup.answer()
    assert answer == ApplicationErrorReply("TooLong", "it is too long")
    assert msgspec.msgpack.decode(payload) == {"length": 7}


async def test_sends_a_p2p_error_of_the_handler_as_it_is() -> None:
    setup = DispatcherSetup(raising(PeerUnknown(peer="carol")))
    setup.deliver()
    error = await setup.error()
    assert isinstance(error, PeerUnknown)
    assert error.peer == "carol"


@pytest.mark.parametrize(
    "error",
    [ValueError("the secret is 42"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), RecursionError()],
    ids=lambda error: type(error).__name__,
)
async def test_another_exception_ends_its_own_call_and_is_not_sent(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        setup = DispatcherSetup(raising(error))
        setup.deliver()
        failed = await setup.error()
        assert isinstance(failed, HandlerFailed)
        assert (failed.peer, failed.protocol, failed.reason) == (KEY.id52, "Test", type(error).__name__)
        assert setup.binding.in_flight == 0
        setup.binding.handlers[""] = RequestHandler(typed)
        setup.deliver("still there")
        assert isinstance((await setup.answer())[1], Reply)
    assert "Traceback" in caplog.text  # the owner's log has it all


class Two(msgspec.Struct):
    number: int
    text: str = ""


async def takes_two(request: Two) -> None: ...


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (msgspec.msgpack.encode({"number": "one"}), r"\$\.number"),
        (msgspec.msgpack.encode({}), "`number`"),
        (b"", "truncated"),
        (b"\x81\xa4text\xa1\xff", "utf-8"),
        (b"\x81\xa6number\x01\x00", "trailing|malformed"),
    ],
)
async def test_rejects_a_request_that_does_not_fit_the_annotation(payload: bytes, reason: str) -> None:
    setup = DispatcherSetup(None)
    setup.binding.handlers[""] = RequestHandler(takes_two)
    setup.deliver(payload)
    error = await setup.error()
    assert isinstance(error, BadRequest)
    assert error.protocol == "Test"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(error.reason)


async def test_rejects_deep_nesting() -> None:
    setup = DispatcherSetup(echo)
    setup.deliver(b"\x91" * 100_000)
    assert isinstance(await setup.error(), BadRequest)


async def test_rejects_requests_to_a_protocol_without_request_handlers() -> None:
    setup = DispatcherSetup(None)
    setup.deliver()
    assert isinstance(await setup.error(), BadRequest)


async def test_a_reply_that_cannot_be_sent_is_an_error_of_the_handler() -> None:
    setup = DispatcherSetup(returning(object()))
    setup.deliver()
    error = await setup.error()
    assert isinstance(error, HandlerFailed)
    assert error.reason == "TypeError"
    setup = DispatcherSetup(returning(bytes(MAX_PAYLOAD + 1)))
    setup.deliver()
    large = await setup.error()
    assert isinstance(large, PayloadTooLarge)
    assert large.size > large.limit == MAX_PAYLOAD


@pytest.mark.parametrize(
    "error",
    [
        ApplicationError("Odd", "", object()),
        ApplicationError("Odd", "", bytes(MAX_PAYLOAD + 1)),
        ApplicationError("Odd", "\ud800"),
        PeerUnknown(peer="x" * MAX_HEADER),
        PeerUnknown(peer=object()),  # type: ignore[arg-type]
    ],
)
async def test_an_error_that_cannot_be_sent_is_an_error_of_the_handler(error: Exception) -> None:
    setup = DispatcherSetup(raising(error))
    setup.deliver()
    failed = await setup.error()
    assert isinstance(failed, HandlerFailed)
    assert failed.reason == type(error).__name__


async def test_cuts_long_texts_of_an_application_error_to_fit_a_header() -> None:
    setup = DispatcherSetup(raising(ApplicationError("K" * MAX_HEADER, "ü" * MAX_HEADER)))
    setup.deliver()
    answer = (await setup.answer())[1]
    assert len(msgspec.msgpack.encode(answer)) < MAX_HEADER


async def test_the_deadline_ends_the_call_and_cancels_the_handler() -> None:
    cancelled = asyncio.Event()

    async def handle(request: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    setup = DispatcherSetup(handle)
    setup.deliver(ms=30)
    error = await setup.error()
    assert isinstance(error, DeadlineExceeded)
    assert error.seconds == 0.03
    async with asyncio.timeout(50):
        await cancelled.wait()
    await run_pending()
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0
    assert setup.answers.empty()


async def test_a_deadline_that_has_passed_ends_the_call_at_once() -> None:
    async def never(request: Any) -> None:
        await asyncio.Event().wait()

    setup = DispatcherSetup(never)
    setup.deliver(ms=0)
    assert isinstance(await setup.error(), DeadlineExceeded)


async def test_a_cancelled_call_gets_no_answer_even_before_it_started() -> None:
    started = asyncio.Event()
    ended = asyncio.Event()

    async def handle(request: Any) -> Any:
        if request == "quick":
            return request
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    setup = DispatcherSetup(handle)
    setup.deliver(id=b"at once")
    setup.dispatcher.cancel(b"at once")
    setup.dispatcher.cancel(b"never heard of")
    setup.deliver(id=b"later")
    await started.wait()
    setup.dispatcher.cancel(b"later")
    await ended.wait()
    await run_pending()
    setup.deliver("quick", id=b"next")
    assert (await setup.answer())[0] == b"next"
    assert setup.answers.empty()
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_a_handler_that_ignores_cancellation_stays_counted_and_blocks_no_other_call() -> None:
    let_go = asyncio.Event()

    async def handle(request: Any) -> Any:
        while request == "stubborn" and not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return request

    setup = DispatcherSetup(handle)
    setup.deliver("stubborn", ms=20)
    assert isinstance(await setup.error(), DeadlineExceeded)
    setup.deliver("next")  # under the same id
    assert (await setup.answer())[2] == msgspec.msgpack.encode("next")
    assert (setup.dispatcher.in_flight, setup.binding.in_flight) == (0, 1)
    let_go.set()
    await run_pending()
    assert setup.binding.in_flight == 0
    assert setup.answers.empty()  # its late return value is not sent


async def test_the_error_names_the_missing_identity_protocol_or_instance() -> None:
    setup = DispatcherSetup(echo)
    for changed, expected in (
        ({"identity": "bob"}, PeerOffline),
        ({"protocol": "Other"}, ProtocolNotFound),
        ({"instance": "other"}, InstanceNotFound),
    ):
        setup.deliver(**changed)  # type: ignore[arg-type]
        assert type(await setup.error()) is expected
    setup.dispatcher.remove(setup.binding)
    setup.deliver()
    assert isinstance(await setup.error(), PeerOffline)


async def test_rejects_more_calls_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p_client.serving.dispatcher.MAX_CALLS_PER_BINDING", 2)
    setup = DispatcherSetup(echo)
    for number in range(3):
        setup.deliver(number, id=b"%d" % number)
    id, answer, _ = await setup.answer()
    assert (id, type(answer.error())) == (b"2", Overloaded)
    setup = DispatcherSetup(echo)
    setup.deliver()
    setup.deliver()
    assert isinstance(await setup.error(), BadMessage)  # the same id twice
    assert isinstance((await setup.answer())[1], Reply)


async def test_drain_finishes_calls_in_flight_and_rejects_further_ones() -> None:
    go = asyncio.Event()

    async def handle(request: Any) -> Any:
        await go.wait()
        return request

    setup = DispatcherSetup(handle)
    setup.deliver("in flight", id=b"1")
    draining = asyncio.ensure_future(setup.dispatcher.drain(5))
    await asyncio.sleep(0)
    setup.deliver("too late", id=b"2")
    assert isinstance(await setup.error(), PeerOffline)
    go.set()
    assert await draining
    assert (await setup.answer())[0] == b"1"


async def test_drain_cancels_calls_that_do_not_end_in_time() -> None:
    async def never(request: Any) -> None:
        await asyncio.Event().wait()

    setup = DispatcherSetup(never)
    setup.deliver()
    assert not await setup.dispatcher.wait_for_binding(setup.binding, 0.02)
    assert isinstance(await setup.error(), HandlerFailed)
    assert await setup.dispatcher.drain(0.02)


async def test_sends_no_answer_after_the_network_process_has_ended() -> None:
    async def never(request: Any) -> None:
        await asyncio.Event().wait()

    setup = DispatcherSetup(never)
    for number in range(10):
        setup.deliver(id=b"%d" % number)
    await asyncio.sleep(0)
    setup.dispatcher.cancel_all()
    await run_pending()
    assert setup.binding.in_flight == 0
    assert setup.answers.empty()
    setup.dispatcher.close()
