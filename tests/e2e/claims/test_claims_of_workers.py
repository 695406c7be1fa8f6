"""Retried calls to replicas whose workers claim them in one store: none is executed by both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import OutcomeUnknown
from tests.support.claim_servers import ClaimServer
from tests.support.daemons import Daemon
from tests.support.nats_servers import NatsProcess
from tests.support.processes import signal_if_alive
from tests.support.replicas import Replicas, kill_all, new_replicas
from tests.support.two_daemons import until, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

pytestmark = pytest.mark.asyncio_loop


@pytest.fixture(scope="module")
def replicas(nats: NatsProcess, claim_server: ClaimServer) -> Iterator[Replicas]:
    """Both daemons of bob have Work, with claims."""
    with new_replicas() as made:
        for daemon in made.daemons:
            with daemon.client() as client:
                config = {"credentials": str(nats.directory / "bridge"), "claims": claim_server.of_workers}
                client.protocols.add(
                    "bob", PROTOCOL, config={"url": nats.url, **config}, allow=["everyone"], workers=True
                )
        yield made


def call(client: Client, replicas: Replicas, **request: str) -> asyncio.Task[Any]:
    return asyncio.create_task(client.call("alice", replicas.bob, PROTOCOL, request=request, timeout=60, retry=True))


async def has_call(daemon: Daemon) -> bool:
    identities = (await asyncio.to_thread(daemon.status)).identities
    return any(binding.in_flight for identity in identities for binding in identity.bindings)


async def test_another_daemon_answers_a_call_or_says_that_it_may_have_been_executed(
    replicas: Replicas, nats: NatsProcess, tmp_path: Path
) -> None:
    """The network process of the first one freezes, and its claims live. Then the daemon that answers is killed."""
    worker = WorkerProcess(nats.url, "bob", tmp_path, credentials=str(nats.directory / "worker"))
    note, go_on = tmp_path / "note", tmp_path / "go-on"
    frozen: list[int] = []
    try:
        worker.ready()
        async with Client(replicas.caller.home) as client:
            asked = call(client, replicas, note=str(note), until=str(go_on))
            await until(note.exists, "it is executed")
            first, second = replicas.daemons
            if not await has_call(first):
                first, second = second, first
            assert first.process is not None
            frozen = [first.process.pid, first.pid("network")]  # the supervisor would start another one
            for pid in frozen:
                signal_if_alive(pid, signal.SIGSTOP)
            await until_awaited(lambda: has_call(second), "the other one has it, and waits")
            go_on.touch()
            assert (await asked)["pid"] == worker.pid
            assert note.read_text().split() == ["begun", str(worker.pid), "ended", str(worker.pid)]

            asked = call(client, replicas, note=str(note), until=str(tmp_path / "never"))
            await until(lambda: note.read_text().count("begun") == 2, "it is executed")
            await asyncio.to_thread(kill_all, second)
            for pid in frozen:
                signal_if_alive(pid, signal.SIGCONT)
            with pytest.raises(OutcomeUnknown):
                await asked
            assert note.read_text().count("begun") == 2
    finally:
        for pid in frozen:
            signal_if_alive(pid, signal.SIGCONT)
        worker.end()
