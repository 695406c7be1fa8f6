"""Messages that NATS has lost: a worker and a bridge of the test's own leave some out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import DeliverCall, Reply, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.nats_client.nats_server import NatsServer
from fastn_p2p_client.workers import serve_workers
from fastn_p2p_client.workers.messages import (
    Accepted,
    Answer,
    FindWorkers,
    Offer,
    Part,
    Ping,
    Pong,
    Subjects,
    WorkerReady,
    decode_for_bridge,
    decode_for_worker,
    new_name,
)
from fastn_p2p_client.workers.nats_channel import NatsChannel
from tests.support.daemons import DEADLINE
from tests.support.nats_servers import NatsProcess
from tests.support.two_daemons import TwoDaemons, until, until_awaited
from tests.support.worker_programs import PROTOCOL

SUBJECTS = Subjects.of("bob", PROTOCOL)
KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


class RecordingWorker:
    """Worker that answers pings, knows no call, and leaves the rest to the test."""

    def __init__(self, nats: NatsProcess, on_offer: Callable[[RecordingWorker, Offer], None]) -> None:
        self._on_offer = on_offer
        self.name = new_name()
        self.offers: list[Offer] = []
        subjects = (SUBJECTS.all_workers, SUBJECTS.worker(self.name), SUBJECTS.ping(self.name))
        self._channel = NatsChannel(NatsServer(nats.url), "tests", dict.fromkeys(subjects, self._on_message))

    def send(self, offer: Offer, message: Accepted | Answer | Pong) -> None:
        self._channel.send(SUBJECTS.bridge(offer.bridge, self.name), message)

    def _on_message(self, _: str, data: bytes, __: bool) -> None:
        for message in decode_for_worker(data):
            if isinstance(message, Offer):
                self.offers.append(message)
                self._on_offer(self, message)
            elif isinstance(message, Ping) and self.offers:
                self.send(self.offers[-1], Pong((), message.ids, False))
            elif isinstance(message, FindWorkers):
                self._channel.send(SUBJECTS.all_bridges, WorkerReady(self.name, "tests", 0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RecordingWorker]:
        await self._channel.connect()
        running = asyncio.create_task(self._channel.run())
        yield self
        running.cancel()
        await asyncio.wait([running])


def accept(worker: RecordingWorker, offer: Offer) -> None:
    worker.send(offer, Accepted((offer.id,)))


def ignore(worker: RecordingWorker, offer: Offer) -> None:
    """The offer was lost."""


@pytest.mark.parametrize("on_offer", [accept, ignore])
async def test_a_call_whose_answer_or_offer_was_lost_ends_typed(
    bound: TwoDaemons, client: Client, nats: NatsProcess, on_offer: Callable[[RecordingWorker, Offer], None]
) -> None:
    async with RecordingWorker(nats, on_offer).running():
        with pytest.raises(ConnectionLost, match="may have been executed"):
            await client.call("alice", bound.bob, PROTOCOL, request={}, timeout=DEADLINE)


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_a_call_with_a_call_id_is_offered_again(
    bound: TwoDaemons, client: Client, nats: NatsProcess, is_accepted: bool
) -> None:
    def answer_the_second(worker: RecordingWorker, offer: Offer) -> None:
        if len(worker.offers) > 1:
            worker.send(offer, Answer(offer.id, encode(Reply()), b"\x07", 1))
        elif is_accepted:
            accept(worker, offer)

    async with RecordingWorker(nats, answer_the_second).running() as worker:
        assert await client.call("alice", bound.bob, PROTOCOL, request={}, retry=True, timeout=DEADLINE) == 7
    assert len(worker.offers) >= 2
    assert len({each.id for each in worker.offers}) == len(worker.offers)


async def test_a_worker_gives_up_requests_of_which_parts_were_lost(nats: NatsProcess) -> None:
    """It says so, and the bridge ends the call or offers it again."""
    bridge, heard = new_name(), list[Any]()

    def hear(_: str, data: bytes, __: bool) -> None:
        heard.extend(decode_for_bridge(data))

    def handle(request: bytes) -> int:
        return len(request)

    server = serve_workers(nats.url, "bob", "Lossy", handle)
    subjects = Subjects.of("bob", "Lossy")
    subscriptions = {subjects.bridge(bridge, "*"): hear, subjects.all_bridges: hear}
    channel = NatsChannel(NatsServer(nats.url), "tests", subscriptions)
    await channel.connect()
    running, serving = asyncio.create_task(channel.run()), asyncio.create_task(server.serve())
    await until(lambda: any(isinstance(each, WorkerReady) for each in heard), "the worker is ready")
    worker = next(each.worker for each in heard if isinstance(each, WorkerReady))
    call = DeliverCall(bytes(KEY), "", "bob", "Lossy", "default", 60_000)
    offer = Offer(b"i" * 16, bridge, bytes(KEY), encode(call), b"", 1000)
    channel.send(subjects.worker(worker), offer)
    channel.send(subjects.worker(worker), Part(offer.id, b"x" * 999))
    await until(lambda: Accepted((offer.id,)) in heard, "the call is accepted")

    async def is_unknown() -> bool:
        channel.send(subjects.ping(worker), Ping(bridge, (offer.id,)))
        return any(isinstance(each, Pong) and each.unknown == (offer.id,) for each in heard)

    await until_awaited(is_unknown, "the worker does not have the call any more")
    assert any(isinstance(each, Pong) and each.known == (offer.id,) for each in heard), "at first it had it"
    server.close()
    await serving
    running.cancel()
    await asyncio.wait([running])
