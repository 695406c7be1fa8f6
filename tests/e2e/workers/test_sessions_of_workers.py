"""Sessions with workers behind NATS, as callers meet them, and what a token for one session is good for."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats as nats_py
import pytest

from fastn_p2p_client import Client, Session
from fastn_p2p_client.errors import (
    ApplicationError,
    BadRequest,
    ConnectionLost,
    Denied,
    Forbidden,
    HandlerFailed,
    ProtocolNotFound,
    TokenRefused,
)
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer
from fastn_p2p_client.nats_client.nats_server import NatsServer
from fastn_p2p_client.serving.registration_loop import DATA_MESSAGE
from fastn_p2p_client.serving.worker_connection import WorkerConnection
from fastn_p2p_client.worker_token import parse_address, token_hash
from fastn_p2p_client.workers.messages import (
    AcceptSession,
    DialForSession,
    FindWorkers,
    OfferSession,
    RefuseSession,
    Subjects,
    WorkerReady,
    decode_for_worker,
    new_name,
)
from fastn_p2p_client.workers.nats_channel import NatsChannel
from tests.e2e.workers.conftest import add_work
from tests.support.daemons import DEADLINE, eventually
from tests.support.nats_servers import NatsProcess
from tests.support.two_daemons import TwoDaemons, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

Start = Callable[..., WorkerProcess]
Connect = Callable[..., Any]
SUBJECTS = Subjects.of("bob", PROTOCOL)


@pytest.fixture
def connect(bound: TwoDaemons, client: Client) -> Connect:
    """Open a session with bob's Work as alice, with this initial value, once the bridge knows a worker."""

    async def open_session(instance: str = "default", **initial: object) -> Session:
        while True:
            try:
                return await client.connect("alice", bound.bob, PROTOCOL, instance, initial=initial, timeout=DEADLINE)
            except ProtocolNotFound:  # after a second, which a slow machine may need
                continue

    return open_session


async def wait_for_worker(bob: Client, alice: str) -> None:
    """Wait until the bridge of alice's Work knows a worker."""
    await bob.call("bob", alice, PROTOCOL, request={}, timeout=DEADLINE, retry=True)


async def greeting(session: Session) -> dict[str, Any]:
    """Return what a worker sends at first."""
    line = b""
    while not line.endswith(b"\n"):
        line += await session.read(1)
    found: dict[str, Any] = json.loads(line)
    return found


async def test_a_session_reaches_a_worker_and_its_bytes_do_not_pass_the_nats_server(
    bound: TwoDaemons, connect: Connect, start: Start, nats: NatsProcess
) -> None:
    worker = start().ready()
    passed: list[int] = []

    async def count(message: Any) -> None:
        passed.append(len(message.data))

    account = await nats_py.connect(nats.url)
    await account.subscribe(">", cb=count)
    await account.flush()
    async with await connect() as session:
        assert await greeting(session) == {"pid": worker.pid, "peer": bound.alice}
        assert session.peer.key.id52 == bound.bob
        sent = bytes(range(256)) * 8_000

        async def send() -> None:
            await session.write(sent)
            await session.send_eof()

        sending = asyncio.ensure_future(send())
        assert b"".join([chunk async for chunk in session]) == sent
        await sending
    await account.flush()
    assert 0 < sum(passed) < 20_000
    await account.close()
    with pytest.raises(ApplicationError, match="on purpose"):
        await connect(fail="Refused")


async def test_workers_share_sessions_and_one_that_ends_finishes_its_own(connect: Connect, start: Start) -> None:
    workers = [start().ready(), start().ready()]
    sessions: list[Session] = []
    served: set[int] = set()

    async def both() -> bool:
        sessions.append(await connect())
        served.add((await greeting(sessions[-1]))["pid"])
        return served == {each.pid for each in workers}

    await until_awaited(both, "each of them has a session")
    workers[0].send(signal.SIGTERM)
    other = await connect()
    while (await greeting(other))["pid"] == workers[0].pid:  # it has not read the signal yet
        await other.close()
        other = await connect()
    for each in sessions:
        await each.write(b"more")
        assert await each.read_exactly(4) == b"more"
        await each.close()
    assert workers[0].wait() == 0
    await other.close()


async def test_the_end_of_a_worker_ends_its_session_and_the_next_one_goes_elsewhere(
    connect: Connect, start: Start
) -> None:
    lost = start().ready()
    session = await connect()
    await greeting(session)
    other = start().ready()
    lost.send(signal.SIGKILL)
    with pytest.raises(ConnectionLost):
        await session.read()
    async with await connect() as session:
        assert (await greeting(session))["pid"] == other.pid


async def test_a_frozen_worker_gets_no_session(connect: Connect, start: Start) -> None:
    frozen = start().ready()
    async with await connect() as session:
        await greeting(session)
    frozen.send(signal.SIGSTOP)
    other = start().ready()
    async with await connect() as session:
        assert (await greeting(session))["pid"] == other.pid
    frozen.send(signal.SIGCONT)


async def test_a_session_outlives_the_process_of_its_identity(
    bound: TwoDaemons, connect: Connect, start: Start
) -> None:
    start().ready()
    async with await connect() as session:
        await greeting(session)
        killed = bound.two.kill_actor("identity-bob")
        bound.two.wait_actor("identity-bob", killed)
        await session.write(b"more")
        assert await session.read_exactly(4) == b"more"


async def test_a_session_ends_with_its_binding_and_with_the_access_of_its_caller(
    bound: TwoDaemons, connect: Connect, start: Start, nats: NatsProcess
) -> None:
    with bound.two.client() as owner:
        add_work(owner, nats.url, "removed")
    start(instance="removed").ready()
    change = ("set-protocol", "bob", "--protocol", PROTOCOL, "--instance", "removed", "--allow")
    session = await connect("removed")
    await greeting(session)
    assert bound.two.cli(*change, bound.bob).returncode == 0
    with pytest.raises(ConnectionLost):
        await session.read()
    with pytest.raises(Denied):
        await connect("removed")
    assert bound.two.cli(*change, "everyone").returncode == 0
    session = await connect("removed")
    await greeting(session)
    with bound.two.client() as owner:
        owner.protocols.remove("bob", PROTOCOL, "removed")
    with pytest.raises(ConnectionLost):
        await session.read()


async def test_without_a_worker_for_sessions_the_error_says_so(
    bound: TwoDaemons, client: Client, connect: Connect, start: Start
) -> None:
    with pytest.raises(ProtocolNotFound):
        await client.connect("alice", bound.bob, PROTOCOL, initial={}, timeout=DEADLINE)
    start(sessions=False).ready()
    with pytest.raises(BadRequest, match="take no sessions"):
        await connect()


async def test_a_daemon_that_workers_cannot_reach_says_what_to_set(
    bound: TwoDaemons, connect: Connect, start: Start, nats: NatsProcess, tmp_path: Path
) -> None:
    with bound.one.client() as owner:
        owner.protocols.add("alice", PROTOCOL, config={"url": nats.url}, allow=["everyone"], workers=True)
    with bound.two.client() as owner:
        add_work(owner, nats.url, "elsewhere", address="127.0.0.1:1")
    worker = WorkerProcess(nats.url, "alice", tmp_path)
    start(instance="elsewhere").ready()
    try:
        worker.ready()
        async with Client(bound.two.home) as bob:
            await wait_for_worker(bob, bound.alice)
            with pytest.raises(HandlerFailed, match=r"fastn-p2p config set worker\.listen HOST:PORT"):
                await bob.connect("bob", bound.alice, PROTOCOL, initial={}, timeout=DEADLINE)
        with pytest.raises(HandlerFailed, match="asked: 1"):
            await connect("elsewhere")
    finally:
        worker.end()
        with bound.one.client() as owner:
            owner.protocols.remove("alice", PROTOCOL)


# ── workers that do not keep to the rules ──────────────────────────────────────────────────────────


class FakeWorker:
    """Worker that accepts sessions with a token of its own, and leaves the rest to the test."""

    def __init__(self, nats: NatsProcess, token: bytes) -> None:
        self.name = new_name()
        self._token = token
        self.dials: asyncio.Queue[tuple[OfferSession, DialForSession]] = asyncio.Queue()
        self._offers: dict[bytes, OfferSession] = {}
        subjects = (SUBJECTS.all_workers, SUBJECTS.worker(self.name))
        self._channel = NatsChannel(NatsServer(nats.url), "tests", dict.fromkeys(subjects, self._on_message))

    def send(self, offer: OfferSession, message: AcceptSession | RefuseSession) -> None:
        self._channel.send(SUBJECTS.bridge(offer.bridge, self.name), message)

    def _on_message(self, _: str, data: bytes, __: bool) -> None:
        for message in decode_for_worker(data):
            if isinstance(message, OfferSession):
                self._offers[message.id] = message
                self.send(message, AcceptSession(message.id, token_hash(self._token)))
            elif isinstance(message, DialForSession):
                self.dials.put_nowait((self._offers[message.id], message))
            elif isinstance(message, FindWorkers):
                self._channel.send(SUBJECTS.all_bridges, WorkerReady(self.name, "tests", 0, True))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeWorker]:
        await self._channel.connect()
        self._channel.send(SUBJECTS.all_bridges, WorkerReady(self.name, "tests", 0, True))
        running = asyncio.create_task(self._channel.run())
        yield self
        running.cancel()
        await asyncio.wait([running])


class Dialled:
    """Connection to the listener of the daemon."""

    def __init__(self, message: DialForSession) -> None:
        self.delivered: asyncio.Queue[Any] = asyncio.Queue()
        connection = partial(WorkerConnection, parse_address(message.address), message.fingerprint, print)
        self._channel = RequestChannel(Path(), "network", connection=connection, on_message=self._on_message)
        self._channel.open()

    def _on_message(self, _: bytes, header: bytes, __: bytes) -> None:
        self.delivered.put_nowait(decode_answer(DATA_MESSAGE, header))

    async def request(self, message: msgspec.Struct) -> None:
        response = await self._channel.request(message, timeout=DEADLINE)
        check_reply(decode_answer(DATA_MESSAGE, response.header), m.Ack, "the network process")

    def close(self) -> None:
        self._channel.close()


def redeem(token: bytes, instance: str = "default") -> m.RedeemRoute:
    return m.RedeemRoute("bob", PROTOCOL, instance, token)


def refused_tokens(daemons: TwoDaemons) -> int:
    """Return the metric."""

    def shown() -> list[str]:
        return re.findall(r"^fastn_p2p_tokens_refused_total (\S+)", daemons.two.cli("metrics").stdout, re.MULTILINE)

    (found,) = eventually(shown, "the network process answers")
    return int(float(found))


async def test_a_token_is_good_for_one_session_of_its_binding(
    bound: TwoDaemons, connect: Connect, nats: NatsProcess
) -> None:
    token = b"a" * 16
    counted = refused_tokens(bound)
    async with FakeWorker(nats, token).running() as worker:
        opening = asyncio.ensure_future(connect())
        offer, dial = await asyncio.wait_for(worker.dials.get(), DEADLINE)
        stranger, holder = Dialled(dial), Dialled(dial)
        try:
            for wrong in (b"", b"b" * 16, token_hash(token), offer.id):  # all that passes NATS
                with pytest.raises(TokenRefused):
                    await stranger.request(redeem(wrong))
            for instance in ("other", "default"):  # it was shown for another binding, and counts no more
                with pytest.raises(TokenRefused):
                    await stranger.request(redeem(token, instance))
            worker.send(offer, RefuseSession(offer.id, "\x1b[31mno"))
            with pytest.raises(HandlerFailed, match="asked: 1"):
                await opening

            opening = asyncio.ensure_future(connect())
            await asyncio.wait_for(worker.dials.get(), DEADLINE)
            await holder.request(redeem(token))
            assert isinstance(await holder.delivered.get(), m.DeliverSession)
            with pytest.raises(TokenRefused):
                await stranger.request(redeem(token))
            for message in (
                redeem(token),
                m.RegisterBinding("bob", PROTOCOL, "default", ("peers",), token),
                m.Call("bob", bound.alice, "Echo", "default", 1000),
                m.RouteSession(token_hash(token)),
            ):
                with pytest.raises(Forbidden):
                    await holder.request(message)
            holder.close()
            with pytest.raises(ConnectionLost):
                await opening
        finally:
            stranger.close()
            holder.close()
    assert refused_tokens(bound) == counted + 7


async def test_a_worker_that_does_not_connect_loses_its_session_to_another_one(
    connect: Connect, start: Start, nats: NatsProcess
) -> None:
    other = start().ready()
    async with FakeWorker(nats, b"c" * 16).running() as worker:

        async def was_asked() -> bool:
            for session in await asyncio.gather(connect(), connect()):  # at once, so each of them is asked
                assert (await greeting(session))["pid"] == other.pid
                await session.close()
            return not worker.dials.empty()

        await until_awaited(was_asked, "the worker that does not connect was asked")
