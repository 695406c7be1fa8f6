"""Workers on other machines, as callers meet them: like programs that serve."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import (
    ApplicationError,
    BadRequest,
    CommandNotFound,
    ConnectionLost,
    DeadlineExceeded,
    Denied,
    ProtocolNotFound,
)
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.e2e.workers.conftest import add_work
from tests.support.daemons import DEADLINE
from tests.support.nats_servers import NatsProcess
from tests.support.two_daemons import TwoDaemons, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

Start = Callable[..., WorkerProcess]
Call = Callable[..., Any]


@pytest.fixture
def call(bound: TwoDaemons, client: Client) -> Call:
    """Call bob's Work as alice, with this request."""

    async def call_work(*, retry: bool = False, command: str = "", timeout: float = DEADLINE, **request: object) -> Any:
        return await client.call(
            "alice", bound.bob, PROTOCOL, request=request, retry=retry, timeout=timeout, command=command
        )

    return call_work


async def noted(path: Path, count: int = 1) -> list[list[str]]:
    """Return the notes of handlers once there are so many."""

    async def read() -> list[list[str]]:
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return lines if len(lines) >= count else []

    return await until_awaited(read, f"{count} notes")


async def test_a_call_reaches_a_worker_and_its_answer_comes_back(bound: TwoDaemons, call: Call, start: Start) -> None:
    worker = start().ready()
    reply = await call(data=b"abc", timeout=20)
    assert (reply["pid"], reply["peer"], reply["data"], reply["command"]) == (worker.pid, bound.alice, b"cba", "")
    assert 0 < reply["left"] <= 20
    assert (await call(command="other"))["command"] == "other"
    with pytest.raises(ApplicationError) as caught:
        await call(fail="Refused")
    error = caught.value
    assert (error.kind, error.message, error.payload) == ("Refused", "on purpose", {"pid": worker.pid})
    with pytest.raises(CommandNotFound):
        await call(command="third")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    with pytest.raises(ProtocolNotFound):
        await call()


async def test_requests_of_another_type_do_not_reach_the_handler(
    bound: TwoDaemons, client: Client, start: Start
) -> None:
    start().ready()
    with pytest.raises(BadRequest):
        await client.call("alice", bound.bob, PROTOCOL, request=[1])


async def test_workers_share_calls_and_a_new_one_takes_part(call: Call, start: Start, tmp_path: Path) -> None:
    workers = [start().ready(), start().ready()]
    go = tmp_path / "go"

    async def share() -> set[int]:
        go.unlink(missing_ok=True)
        calls = [asyncio.create_task(call(until=str(go), note=str(tmp_path / "notes"))) for _ in range(8)]
        await noted(tmp_path / "notes", 8)
        go.touch()
        replies = await asyncio.gather(*calls)
        (tmp_path / "notes").unlink()
        return {reply["pid"] for reply in replies}

    async def all_share() -> bool:
        return await share() == {each.pid for each in workers}

    await until_awaited(all_share, "both take part")
    workers.append(start().ready())
    await until_awaited(all_share, "all three take part")  # the bridge may hear of it after it is ready


async def test_calls_wait_for_workers_that_take_one_at_a_time(call: Call, start: Start, tmp_path: Path) -> None:
    workers = [start(concurrency=1).ready() for _ in range(2)]
    go, notes = tmp_path / "go", tmp_path / "notes"
    calls = [asyncio.create_task(call(until=str(go), note=str(notes))) for _ in range(6)]
    assert len(await noted(notes, 2)) == 2
    go.touch()
    assert {reply["pid"] for reply in await asyncio.gather(*calls)} == {each.pid for each in workers}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_calls_of_a_worker_that_is_gone(call: Call, start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """With a call id another worker executes them; the others may have been executed, and end typed."""
    lost, notes, go = start().ready(), tmp_path / "notes", tmp_path / "go"
    repeated = [asyncio.create_task(call(until=str(go), note=str(notes), retry=True)) for _ in range(5)]
    plain = [asyncio.create_task(call(until=str(go), note=str(tmp_path / "plain"))) for _ in range(5)]
    await noted(notes, 5)
    await noted(tmp_path / "plain", 5)
    other = start().ready()
    lost.send(number)
    for error in await asyncio.gather(*plain, return_exceptions=True):
        assert isinstance(error, ConnectionLost), "and not that of the deadline"
    go.touch()
    assert [reply["pid"] for reply in await asyncio.gather(*repeated)] == [other.pid] * 5
    if number == signal.SIGSTOP:
        lost.send(signal.SIGCONT)  # its handlers are cancelled, and it takes part again
        endings = {what for what, pid in await noted(notes, 15) if int(pid) == lost.pid}
        assert endings <= {"begun", "ended-with-CancelledError", "ended"}

        async def takes_part() -> bool:
            return lost.pid in {(await call())["pid"] for _ in range(4)}

        await until_awaited(takes_part, "the worker that was frozen gets calls again")


async def test_offers_to_a_frozen_worker_are_executed_by_another_one_alone(
    call: Call, start: Start, tmp_path: Path
) -> None:
    frozen, notes = start().ready(), tmp_path / "notes"
    await call()
    frozen.send(signal.SIGSTOP)
    pending = [asyncio.create_task(call(note=str(notes), retry=True)) for _ in range(3)]
    other = start().ready()
    assert [reply["pid"] for reply in await asyncio.gather(*pending)] == [other.pid] * 3
    frozen.send(signal.SIGCONT)

    async def takes_part() -> bool:
        return frozen.pid in {(await call())["pid"] for _ in range(4)}

    await until_awaited(takes_part, "the worker that was frozen gets calls again")
    assert {int(pid) for _, pid in await noted(notes, 6)} == {other.pid}, "it has read old offers and asked first"


async def test_a_handler_that_computes_for_long_is_not_taken_for_dead(call: Call, start: Start, tmp_path: Path) -> None:
    start().ready()
    notes = tmp_path / "notes"
    reply = await call(block=1.5, note=str(notes), retry=True)
    assert await noted(notes, 2) == [["begun", str(reply["pid"])], ["ended", str(reply["pid"])]]


async def test_the_end_of_a_call_cancels_its_handler(call: Call, start: Start, tmp_path: Path) -> None:
    start().ready()
    notes = tmp_path / "notes"
    pending = asyncio.create_task(call(until=str(tmp_path / "never"), note=str(notes)))
    await noted(notes, 1)
    pending.cancel()
    assert (await noted(notes, 2))[1][0] == "ended-with-CancelledError"

    async def began() -> bool:
        """It does not if the call is on its way until its deadline."""
        with pytest.raises(DeadlineExceeded):
            await call(until=str(tmp_path / "never"), note=str(notes), timeout=0.5)
        return len(notes.read_text().splitlines()) > 2

    await until_awaited(began, "the handler has begun")
    assert (await noted(notes, 4))[3][0] == "ended-with-CancelledError"


async def test_payloads_up_to_the_limit_pass(call: Call, start: Start) -> None:
    """A message of the server has at most 1 MiB."""
    start().ready()
    data = bytes(range(256)) * 12_000
    assert (await call(data=data))["data"] == data[::-1]
    large = MAX_PAYLOAD - 1000
    assert len((await call(more=large))["data"]) == large


async def test_a_restart_of_the_server_loses_no_call_with_a_call_id(
    call: Call, start: Start, nats: NatsProcess, tmp_path: Path
) -> None:
    for _ in range(2):
        start().ready()
    go, notes = tmp_path / "go", tmp_path / "notes"
    pending = [asyncio.create_task(call(until=str(go), note=str(notes), retry=True)) for _ in range(6)]
    await noted(notes, 6)
    nats.kill()
    go.touch()
    await noted(notes, 12)  # the answers have no way now
    nats.start()
    assert len(await asyncio.gather(*pending)) == 6


async def test_a_restart_of_the_identity_finds_the_workers_again(bound: TwoDaemons, call: Call, start: Start) -> None:
    worker = start().ready()
    await call()
    killed = bound.two.kill_actor("identity-bob")
    bound.two.wait_actor("identity-bob", killed)
    assert (await call(retry=True))["pid"] == worker.pid


async def test_without_a_worker_the_error_is_that_of_a_program_that_is_away(call: Call) -> None:
    with pytest.raises(ProtocolNotFound):
        await call()


async def test_the_access_list_holds_before_workers_do(
    bound: TwoDaemons, client: Client, nats: NatsProcess, start: Start, tmp_path: Path
) -> None:
    with bound.two.client() as owner:
        owner.protocols.add("bob", PROTOCOL, "closed", config={"url": nats.url}, allow=["peers"], workers=True)
    start(instance="closed").ready()
    with pytest.raises(Denied):
        await client.call("alice", bound.bob, PROTOCOL, "closed", request={"note": str(tmp_path / "notes")})
    assert not (tmp_path / "notes").exists()
    with bound.two.client() as owner:
        owner.protocols.remove("bob", PROTOCOL, "closed")
        add_work(owner, nats.url, "closed")
    assert "pid" in await client.call("alice", bound.bob, PROTOCOL, "closed", request={})
