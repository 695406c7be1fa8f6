"""Claims of calls by several processes, with each kind of store: none is executed twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from fastn_p2p_client import PublicKey
from fastn_p2p_client.claims import call_claims
from fastn_p2p_client.claims.call_claims import MAX_KEPT, CallClaims, Outcome
from fastn_p2p_client.claims.claims_url import parse_claims
from fastn_p2p_client.errors import ConnectionLost, OutcomeUnknown, ProtocolNotFound, StorageUnavailable
from fastn_p2p_client.protocol import CallContext
from tests.support.claim_servers import ClaimServer
from tests.support.daemons import DEADLINE
from tests.support.two_daemons import until
from tests.support.worker_programs import PROTOCOL


@pytest.fixture
def caller() -> bytes:
    """Key of a caller that no other test has."""
    return os.urandom(32)


@asynccontextmanager
async def claims_of(url: str, instance: str = "default") -> AsyncIterator[CallClaims]:
    claims = CallClaims(PublicKey(bytes(range(32))), PROTOCOL, instance, parse_claims(url).open("test"))
    try:
        yield claims
    finally:
        await claims.close()


def retried(call_id: bytes, seconds: float = DEADLINE) -> CallContext:
    return CallContext("", call_id, asyncio.get_running_loop().time() + seconds, "")


class Executions:
    """Answers of a worker, and the number of calls that it got."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self._answers = list(answers)
        self.count = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self) -> Outcome:
        self.count += 1
        await self.go_on.wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_another_daemon_waits_for_the_answer_and_keeps_it(claim_server: ClaimServer, caller: bytes) -> None:
    executions = Executions((b"header", b"payload"))
    executions.go_on.clear()
    async with claims_of(claim_server.url) as one, claims_of(claim_server.url) as two:
        first = asyncio.create_task(one.execute_once(caller, retried(b"waits"), executions))
        await until(lambda: executions.count == 1, "it is executed")
        second = asyncio.create_task(two.execute_once(caller, retried(b"waits"), executions))
        done, _ = await asyncio.wait([second], timeout=1)
        assert not done
        executions.go_on.set()
        assert await first == await second == (b"header", b"payload")
        assert await two.execute_once(caller, retried(b"waits"), executions) == (b"header", b"payload")
    assert executions.count == 1


async def test_a_call_that_may_have_been_executed_is_not_executed_again(
    claim_server: ClaimServer, caller: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker was lost, or the answer was too long to keep, or the daemon that had claimed it does not live."""
    monkeypatch.setattr(call_claims, "DEAD_SECONDS", 0.1)
    lost, long = Executions(ConnectionLost(what="the worker")), Executions((b"", bytes(MAX_KEPT + 1)))
    endless = Executions((b"", b""))
    endless.go_on.clear()
    async with claims_of(claim_server.url) as two:
        async with claims_of(claim_server.url) as one:
            with pytest.raises(OutcomeUnknown):
                await one.execute_once(caller, retried(b"lost"), lost)
            assert await one.execute_once(caller, retried(b"long"), long) == (b"", bytes(MAX_KEPT + 1))
            cancelled = asyncio.create_task(one.execute_once(caller, retried(b"cancelled"), endless))
            await until(lambda: endless.count == 1, "it is executed")
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            dying = asyncio.create_task(one.execute_once(caller, retried(b"dies"), endless))
            await until(lambda: endless.count == 2, "it is executed")
        dying.cancel()  # nothing can be noted any more
        for call_id in (b"lost", b"long", b"cancelled", b"dies"):
            with pytest.raises(OutcomeUnknown):
                await two.execute_once(caller, retried(call_id), endless)
    assert (lost.count, long.count, endless.count) == (1, 1, 2)


async def test_a_call_that_no_worker_has_had_is_given_back(claim_server: ClaimServer, caller: bytes) -> None:
    executions = Executions(ProtocolNotFound(peer="bob", protocol=PROTOCOL), (b"header", b""))
    url = claim_server.url
    async with claims_of(url) as one, claims_of(url) as two, claims_of(url, "other") as other:
        with pytest.raises(ProtocolNotFound):
            await one.execute_once(caller, retried(b"back"), executions)
        assert await two.execute_once(caller, retried(b"back"), executions) == (b"header", b"")
        another = Executions((b"other", b""))
        assert await other.execute_once(caller, retried(b"back"), another) == (b"other", b"")
        assert await other.execute_once(os.urandom(32), retried(b"back"), Executions((b"third", b""))) == (
            b"third",
            b"",
        )


async def test_a_call_that_was_cancelled_says_so_at_once(claim_server: ClaimServer, caller: bytes) -> None:
    """The other daemon does not wait until the first one counts as dead."""
    endless = Executions((b"", b""))
    endless.go_on.clear()
    async with claims_of(claim_server.url) as one, claims_of(claim_server.url) as two:
        running = asyncio.create_task(one.execute_once(caller, retried(b"given up"), endless))
        await until(lambda: endless.count == 1, "it is executed")
        waiting = asyncio.create_task(two.execute_once(caller, retried(b"given up"), endless))
        running.cancel()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(OutcomeUnknown):
                await waiting
    assert endless.count == 1


async def test_an_answer_that_could_not_be_kept_is_unknown_elsewhere(
    claim_server: ClaimServer, caller: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is away when the call has been executed. Its caller gets the answer all the same."""
    monkeypatch.setattr(call_claims, "DEAD_SECONDS", 1.0)
    executions = Executions((b"header", b""), (b"again", b""))
    executions.go_on.clear()
    async with claims_of(claim_server.url) as one, claims_of(claim_server.url) as two:
        running = asyncio.create_task(one.execute_once(caller, retried(b"not kept"), executions))
        await until(lambda: executions.count == 1, "it is executed")
        claim_server.stop()
        try:
            executions.go_on.set()
            assert await running == (b"header", b"")
        finally:
            claim_server.start()
        with pytest.raises(OutcomeUnknown):
            await two.execute_once(caller, retried(b"not kept"), executions)
    assert executions.count == 1


async def test_one_of_many_processes_executes_each_call(claim_server: ClaimServer, caller: bytes) -> None:
    count = dict.fromkeys(range(50), 0)

    async def execute(number: int) -> Outcome:
        count[number] += 1
        return b"header", b"%d" % number

    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(claims_of(claim_server.url)) for _ in range(4)]
        outcomes = await asyncio.gather(
            *(
                each.execute_once(caller, retried(b"one of many %d" % number), partial(execute, number))
                for number in count
                for each in processes
            )
        )
    assert outcomes == [(b"header", b"%d" % number) for number in count for _ in processes]
    assert set(count.values()) == {1}


async def test_without_the_server_nothing_is_executed(claim_server: ClaimServer, caller: bytes) -> None:
    """The call ends before its deadline. One that has more time is executed when the server is back."""
    executions = Executions((b"late", b""))
    async with claims_of(claim_server.url) as claims:
        claim_server.stop()
        try:
            with pytest.raises(StorageUnavailable):
                await claims.execute_once(caller, retried(b"away", 1.5), executions)
            assert executions.count == 0
            patient = asyncio.create_task(claims.execute_once(caller, retried(b"patient"), executions))
        finally:
            claim_server.start()
        assert await patient == (b"late", b"")


async def test_with_a_frozen_server_a_call_ends_before_its_deadline(claim_server: ClaimServer, caller: bytes) -> None:
    """Also a call that has a connection. Afterwards calls are claimed again."""
    executions = Executions((b"first", b""), (b"last", b""))
    async with claims_of(claim_server.url) as claims:
        assert await claims.execute_once(caller, retried(b"before"), executions) == (b"first", b"")
        claim_server.send(signal.SIGSTOP)
        try:
            with pytest.raises(StorageUnavailable):
                await claims.execute_once(caller, retried(b"frozen", 1.5), executions)
            assert executions.count == 1
        finally:
            claim_server.send(signal.SIGCONT)
        assert await claims.execute_once(caller, retried(b"after"), executions) == (b"last", b"")
