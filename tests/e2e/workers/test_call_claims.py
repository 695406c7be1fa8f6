"""Retried calls to replicas that claim them in one bucket of a NATS server: none is executed by both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.protocols.workers import call_claims
from fastn_p2p.protocols.workers.call_claims import MAX_KEPT, CallClaims, Outcome
from fastn_p2p_client import Client, PublicKey
from fastn_p2p_client.errors import ConnectionLost, OutcomeUnknown, ProtocolNotFound, StorageUnavailable
from fastn_p2p_client.protocol import BindingContext, CallContext
from fastn_p2p_client.workers.nats_server import NatsServer
from tests.e2e.workers.conftest import add_work
from tests.support.daemons import DEADLINE, Daemon
from tests.support.nats_servers import NatsProcess, nats_server
from tests.support.processes import signal_if_alive
from tests.support.replicas import Replicas, kill_all, new_replicas
from tests.support.two_daemons import until, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

pytestmark = pytest.mark.asyncio_loop

BUCKET = "claims"
CALLER = bytes(32)


@pytest.fixture(scope="module")
def jetstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    """A server with JetStream. Its account has the rights that docs/workers.md gives to a bridge, and no more."""
    directory = tmp_path_factory.mktemp("jetstream")
    rights = f"""
jetstream {{ store_dir: "{directory}/store" }}
authorization {{ users = [
  {{ user: bridge, password: secret, permissions: {{
    publish: ["fastn-p2p.>", "$KV.{BUCKET}.>", "$JS.API.STREAM.INFO.KV_{BUCKET}", "$JS.API.STREAM.CREATE.KV_{BUCKET}",
              "$JS.API.STREAM.MSG.GET.KV_{BUCKET}"]
    subscribe: ["fastn-p2p.>", "_INBOX.>"] }} }}
  {{ user: worker, password: secret, permissions: {{ publish: "fastn-p2p.>", subscribe: "fastn-p2p.>" }} }}
] }}
"""
    for user in ("bridge", "worker"):
        path = directory / user
        path.touch(mode=0o600)
        path.write_text(f'user = "{user}"\npassword = "secret"\n')
    with nats_server(directory, rights) as server:
        yield server


@asynccontextmanager
async def claims_of(server: NatsProcess, instance: str = "default") -> AsyncIterator[CallClaims]:
    context = BindingContext("bob", PublicKey(bytes(range(32))), PROTOCOL, instance, Path("/"), None)
    claims = CallClaims(context, NatsServer(server.url, str(server.directory / "bridge")), BUCKET)
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


async def test_another_daemon_waits_for_the_answer_and_keeps_it(jetstream: NatsProcess) -> None:
    executions = Executions((b"header", b"payload"))
    executions.go_on.clear()
    async with claims_of(jetstream) as one, claims_of(jetstream) as two:
        first = asyncio.create_task(one.execute_once(CALLER, retried(b"waits"), executions))
        await until(lambda: executions.count == 1, "it is executed")
        second = asyncio.create_task(two.execute_once(CALLER, retried(b"waits"), executions))
        done, _ = await asyncio.wait([second], timeout=1)
        assert not done
        executions.go_on.set()
        assert await first == await second == (b"header", b"payload")
        assert await two.execute_once(CALLER, retried(b"waits"), executions) == (b"header", b"payload")
    assert executions.count == 1


async def test_a_call_that_may_have_been_executed_is_not_executed_again(
    jetstream: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker was lost, or the answer was too long to keep, or the daemon that had claimed it does not live."""
    monkeypatch.setattr(call_claims, "DEAD_SECONDS", 0.1)
    lost, long = Executions(ConnectionLost(what="the worker")), Executions((b"", bytes(MAX_KEPT + 1)))
    endless = Executions((b"", b""))
    endless.go_on.clear()
    async with claims_of(jetstream) as two:
        async with claims_of(jetstream) as one:
            with pytest.raises(OutcomeUnknown):
                await one.execute_once(CALLER, retried(b"lost"), lost)
            assert await one.execute_once(CALLER, retried(b"long"), long) == (b"", bytes(MAX_KEPT + 1))
            running = asyncio.create_task(one.execute_once(CALLER, retried(b"dies"), endless))
            await until(lambda: endless.count == 1, "it is executed")
            running.cancel()
        for call_id in (b"lost", b"long", b"dies"):
            with pytest.raises(OutcomeUnknown):
                await two.execute_once(CALLER, retried(call_id), endless)
    assert (lost.count, long.count, endless.count) == (1, 1, 1)


async def test_a_call_that_no_worker_has_had_is_given_back(jetstream: NatsProcess) -> None:
    executions = Executions(ProtocolNotFound(peer="bob", protocol=PROTOCOL), (b"header", b""))
    async with claims_of(jetstream) as one, claims_of(jetstream) as two, claims_of(jetstream, "other") as other:
        with pytest.raises(ProtocolNotFound):
            await one.execute_once(CALLER, retried(b"back"), executions)
        assert await two.execute_once(CALLER, retried(b"back"), executions) == (b"header", b"")
        another = Executions((b"other", b""))
        assert await other.execute_once(CALLER, retried(b"back"), another) == (b"other", b"")
        assert await other.execute_once(bytes(range(32)), retried(b"back"), Executions((b"third", b""))) == (
            b"third",
            b"",
        )


async def test_without_the_server_nothing_is_executed(tmp_path: Path, jetstream: NatsProcess) -> None:
    executions = Executions((b"", b""))
    plain = NatsProcess(tmp_path / "away")
    (plain.directory / "bridge").touch(mode=0o600)
    (plain.directory / "bridge").write_text('user = "bridge"\npassword = "secret"\n')
    async with claims_of(plain) as claims:
        with pytest.raises(StorageUnavailable):
            await claims.execute_once(CALLER, retried(b"away", 1.0), executions)
    assert executions.count == 0


# ── with daemons ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def replicas(jetstream: NatsProcess) -> Iterator[Replicas]:
    """Both daemons of bob have Work, with claims."""
    with new_replicas() as made:
        for daemon in made.daemons:
            with daemon.client() as client:
                add_work(client, jetstream.url, credentials=str(jetstream.directory / "bridge"), claims=BUCKET)
        yield made


def call(client: Client, replicas: Replicas, **request: str) -> asyncio.Task[Any]:
    return asyncio.create_task(client.call("alice", replicas.bob, PROTOCOL, request=request, timeout=60, retry=True))


async def has_call(daemon: Daemon) -> bool:
    identities = (await asyncio.to_thread(daemon.status)).identities
    return any(binding.in_flight for identity in identities for binding in identity.bindings)


async def test_another_daemon_answers_a_call_or_says_that_it_may_have_been_executed(
    replicas: Replicas, jetstream: NatsProcess, tmp_path: Path
) -> None:
    """The network process of the first one freezes, and its claims live. Then the daemon that answers is killed."""
    worker = WorkerProcess(jetstream.url, "bob", tmp_path, credentials=str(jetstream.directory / "worker"))
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
