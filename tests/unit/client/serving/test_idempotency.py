"""Retried calls are executed once, and every delivery gets the same outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.ipc.messages import ApplicationErrorReply, CallUnknown, DeliverCall, Reply
from fastn_p2p_client.serving import idempotency
from fastn_p2p_client.serving.idempotency import IdempotencyCache
from tests.support.dispatchers import KEY, DispatcherSetup

ID = b"0123456789abcdef"


class Once(DispatcherSetup):
    """Dispatcher whose handler waits for ``go_on`` and counts its executions."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.go_on = asyncio.Event()
        self.executed = 0
        self.cancelled = 0

    async def _handle(self, request: Any) -> Any:
        self.executed += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if request == "refuse":
            raise ApplicationError("No", "not today")
        return self.executed

    async def results(self, count: int) -> dict[bytes, Any]:
        answers = [await self.answer() for _ in range(count)]
        assert all(isinstance(message, Reply) for _, message, _ in answers)
        return {id: msgspec.msgpack.decode(payload) for id, _, payload in answers}


async def a_few_iterations() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_duplicate_gets_the_outcome_of_the_call_that_runs() -> None:
    setup = Once()
    for attempt, id in enumerate((b"1", b"2", b"3")):
        setup.deliver("x", id=id, call_id=ID, attempt=attempt)
    await a_few_iterations()
    setup.go_on.set()
    assert await setup.results(3) == {b"1": 1, b"2": 1, b"3": 1}
    assert setup.dispatcher.in_flight == setup.binding.in_flight == 0


async def test_stores_the_outcome_of_replies_and_errors() -> None:
    setup = Once()
    setup.go_on.set()
    for request, call_id in (("x", ID), ("refuse", b"other")):
        outcomes = []
        for attempt in range(3):
            setup.deliver(request, call_id=call_id, attempt=attempt)
            outcomes.append((await setup.answer())[1:])
        assert outcomes == [outcomes[0]] * 3
        assert isinstance(outcomes[0][0], Reply if request == "x" else ApplicationErrorReply)
    assert setup.executed == 2


async def test_does_not_execute_an_unknown_call_that_is_marked_as_a_retry() -> None:
    setup = Once()
    setup.deliver("x", call_id=ID, attempt=1)
    assert (await setup.answer())[1] == CallUnknown()
    assert setup.executed == 0


async def test_the_same_id_of_another_caller_or_for_another_binding_is_another_call() -> None:
    setup = Once()
    setup.go_on.set()
    setup.deliver("x", id=b"1", call_id=ID)
    setup.deliver("x", id=b"2", call_id=ID, peer=bytes(reversed(bytes(KEY))))
    setup.deliver("x", id=b"3", call_id=ID + b"!"[:0], command="")
    setup.deliver("x", id=b"4", call_id=ID[:-1])
    assert await setup.results(4) == {b"1": 1, b"2": 2, b"3": 1, b"4": 3}


async def test_goes_on_when_the_network_process_has_ended() -> None:
    """A call without a call id ends."""
    setup = Once()
    setup.deliver("x", id=b"1", call_id=ID)
    setup.deliver("x", id=b"2")
    await a_few_iterations()
    setup.dispatcher.cancel_all()
    await a_few_iterations()
    assert (setup.executed, setup.cancelled) == (2, 1)
    setup.deliver("x", id=b"1", call_id=ID, attempt=1)  # the next one begins with its ids anew
    setup.deliver("x", id=b"2")
    setup.go_on.set()
    assert await setup.results(2) == {b"1": 3, b"2": 3}
    assert setup.answers.empty()


async def test_is_cancelled_with_its_last_waiter() -> None:
    setup = Once()
    setup.deliver("x", id=b"1", call_id=ID)
    setup.deliver("x", id=b"2", call_id=ID)
    await a_few_iterations()
    setup.dispatcher.cancel(b"1")
    setup.dispatcher.cancel(b"1")
    await a_few_iterations()
    assert setup.cancelled == 0
    setup.dispatcher.cancel(b"2")
    await a_few_iterations()
    assert (setup.cancelled, setup.dispatcher.in_flight, setup.binding.in_flight) == (1, 0, 0)
    setup.deliver("x", id=b"3", call_id=ID, attempt=1)
    assert (await setup.answer())[1] == CallUnknown()


async def test_the_deadline_ends_it_for_every_waiter() -> None:
    setup = Once()
    setup.deliver("x", id=b"1", ms=20, call_id=ID)
    setup.deliver("x", id=b"2", ms=20, call_id=ID)
    assert {(await setup.answer())[0] for _ in range(2)} == {b"1", b"2"}
    await a_few_iterations()
    assert (setup.cancelled, setup.dispatcher.in_flight) == (1, 0)


async def test_close_cancels_it() -> None:
    setup = Once()
    setup.deliver("x", call_id=ID)
    await a_few_iterations()
    setup.dispatcher.close()
    await a_few_iterations()
    assert setup.cancelled == 1


# ── what is remembered ───────────────────────────────────────────────────────────────────────────


def test_removes_outcomes_after_their_deadline_and_beyond_the_limit() -> None:
    now = 0.0
    memory = IdempotencyCache(lambda: now)
    memory.store(b"early", (b"h", b"p"), 10.0)
    now = 11.0
    assert memory.outcome(b"early") is None
    for number in range(idempotency.MAX_REMEMBERED + 10):
        memory.store(b"%d" % number, (b"h", b"p"), 100.0)
    assert memory.outcome(b"9") is None
    assert memory.outcome(b"10") == (b"h", b"p")
    big = bytes(idempotency.MAX_REMEMBERED_BYTES // 4)
    for number in range(5):
        memory.store(b"big%d" % number, (b"h", big), 100.0)
    assert memory.outcome(b"10") is None
    assert [memory.outcome(b"big%d" % number) is not None for number in range(5)] == [False, False, True, True, True]


def test_keys_differ_when_any_name_or_id_differs() -> None:
    base: dict[str, Any] = {
        "peer": bytes(32), "petname": "", "identity": "a", "protocol": "P", "instance": "i", "deadline_ms": 1,
        "command": "c", "call_id": ID,
    }  # fmt: skip
    changes: list[dict[str, Any]] = [
        {}, {"peer": b"\1" * 32}, {"identity": "b"}, {"protocol": "Q"}, {"instance": "j"}, {"command": "d"},
        {"call_id": ID[1:]},
    ]  # fmt: skip
    keys = {IdempotencyCache.key_of(DeliverCall(**{**base, **change})) for change in changes}
    assert len(keys) == 7
    assert min(map(len, keys)) > 16, "no correlation is as long"
    same = DeliverCall(**{**base, "petname": "bob", "deadline_ms": 7, "attempt": 3})
    assert IdempotencyCache.key_of(same) == IdempotencyCache.key_of(DeliverCall(**base))
