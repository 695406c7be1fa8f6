"""Retried calls to programs of several daemons that claim them in one store: none is executed twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import OutcomeUnknown, StorageUnavailable
from tests.support.claim_servers import ClaimServer
from tests.support.daemons import Daemon
from tests.support.replicas import Replicas, kill_all, new_replicas, unreachable
from tests.support.two_daemons import until, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

# Use one kind of store: test_claim_stores and test_call_claims compare both.
pytestmark = [
    pytest.mark.asyncio_loop,
    pytest.mark.parametrize("claim_server", ["postgres"], indirect=True, scope="package"),
]

LONG = 70_000
"""Bytes of an answer that no store keeps."""


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    with new_replicas() as made:
        yield made


@contextmanager
def programs(replicas: Replicas, claims: str, directory: Path) -> Iterator[dict[Daemon, WorkerProcess]]:
    """A program of bob's Work at each daemon."""
    found = {each: start_program(each, claims, directory) for each in replicas.daemons}
    try:
        for each in found.values():
            each.ready()
        yield found
    finally:
        for each in found.values():
            each.end()


def start_program(daemon: Daemon, claims: str, directory: Path) -> WorkerProcess:
    return WorkerProcess("", "bob", directory, home=str(daemon.home.path), claims=claims)


@asynccontextmanager
async def calling(replicas: Replicas) -> AsyncIterator[Client]:
    async with Client(replicas.caller.home) as client:
        yield client


def call(client: Client, replicas: Replicas, timeout: float = 60, **request: object) -> asyncio.Task[Any]:
    made = client.call("alice", replicas.bob, PROTOCOL, request=request, timeout=timeout, retry=True)
    return asyncio.create_task(made)


async def has_call(daemon: Daemon) -> bool:
    identities = (await asyncio.to_thread(daemon.status)).identities
    return any(binding.in_flight for identity in identities for binding in identity.bindings)


async def executed_at(replicas: Replicas, note: Path) -> tuple[Daemon, Daemon]:
    """The daemon whose program executes the call, and the other one."""
    await until(note.exists, "it is executed")
    first, second = replicas.daemons
    return (first, second) if await has_call(first) else (second, first)


async def test_another_daemon_gives_the_answer_of_one_whose_reply_never_arrives(
    replicas: Replicas, claim_server: ClaimServer, tmp_path: Path
) -> None:
    """Both daemons have the call at the same time. A long answer is not kept, and then the outcome is unknown."""
    note, go_on, late = tmp_path / "note", tmp_path / "go-on", tmp_path / "late"
    with programs(replicas, claim_server.url, tmp_path) as running:
        async with calling(replicas) as client:
            asked = call(client, replicas, note=str(note), until=str(go_on))
            first, second = await executed_at(replicas, note)
            with unreachable(first):
                await until_awaited(lambda: has_call(second), "the other one has it, and waits")
                go_on.touch()
                assert (await asked)["pid"] == running[first].pid
            assert note.read_text().split() == ["begun", str(running[first].pid), "ended", str(running[first].pid)]

            note.unlink()
            asked = call(client, replicas, note=str(note), until=str(late), more=LONG)
            first, second = await executed_at(replicas, note)
            with unreachable(first):
                await until_awaited(lambda: has_call(second), "the other one has it, and waits")
                late.touch()
                with pytest.raises(OutcomeUnknown):
                    await asked
            assert note.read_text().split() == ["begun", str(running[first].pid), "ended", str(running[first].pid)]


async def test_a_program_that_is_started_again_does_not_execute_what_the_killed_one_had(
    replicas: Replicas, claim_server: ClaimServer, tmp_path: Path
) -> None:
    """The daemon lives. The other one gets nothing of it."""
    note = tmp_path / "note"
    with programs(replicas, claim_server.url, tmp_path) as running:
        async with calling(replicas) as client:
            asked = call(client, replicas, note=str(note), until=str(tmp_path / "never"))
            first, _ = await executed_at(replicas, note)
            running[first].end()
            running[first] = start_program(first, claim_server.url, tmp_path)
            with pytest.raises(OutcomeUnknown):
                await asked
    assert note.read_text().count("begun") == 1


async def test_without_the_store_nothing_is_executed(
    replicas: Replicas, claim_server: ClaimServer, tmp_path: Path
) -> None:
    """A call without ``retry`` needs no store. When it is back, calls are claimed again."""
    note = tmp_path / "note"
    with programs(replicas, claim_server.url, tmp_path):
        async with calling(replicas) as client:
            claim_server.stop()
            try:
                with pytest.raises(StorageUnavailable):
                    await call(client, replicas, timeout=5, note=str(note))
                assert not note.exists()
                assert await client.call("alice", replicas.bob, PROTOCOL, request={}, timeout=60)
                patient = call(client, replicas, note=str(note))
            finally:
                claim_server.start()
            await patient
    assert note.read_text().count("begun") == 1


async def test_a_daemon_that_is_killed_in_the_middle_leaves_the_outcome_unknown(
    replicas: Replicas, claim_server: ClaimServer, tmp_path: Path
) -> None:
    """The whole machine is gone: the daemon, and its program."""
    note = tmp_path / "note"
    with programs(replicas, claim_server.url, tmp_path) as running:
        async with calling(replicas) as client:
            asked = call(client, replicas, note=str(note), until=str(tmp_path / "never"))
            first, _ = await executed_at(replicas, note)
            await asyncio.to_thread(kill_all, first)
            running[first].end()
            try:
                with pytest.raises(OutcomeUnknown):
                    await asked
            finally:
                await asyncio.to_thread(first.start)
    assert note.read_text().count("begun") == 1
