"""``StartQueue``: long handlers keep neither the process from reading nor other peers' handlers from starting."""

from __future__ import annotations

import asyncio

from fastn_p2p_client.serving.start_queue import StartQueue
from tests.support.event_loop import run_pending

LONG = 1.0
"""Seconds, more than the budget of an iteration."""
SHORT = 0.0001


class Bench:
    """Handlers of several peers, on a clock that only they advance."""

    def __init__(self) -> None:
        self.now = 1.0
        self.queue = StartQueue(asyncio.get_running_loop(), lambda: self.now)
        self.started: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []

    def deliver(self, peer: bytes, count: int, takes: float) -> list[asyncio.Task[None]]:
        self.queue.on_read()
        tasks = [asyncio.create_task(self._handle(peer, takes)) for _ in range(count)]
        self.tasks += tasks
        return tasks

    async def _handle(self, peer: bytes, takes: float) -> None:
        if not self.queue.has_time():
            await self.queue.wait(peer)
        self.started.append(peer)
        self.now += takes

    async def all(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_small_handlers_start_at_once() -> None:
    bench = Bench()
    bench.deliver(b"a", 50, SHORT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(bench.started) == 50
    assert len(bench.queue) == 0


async def test_starts_one_long_handler_per_iteration_and_loses_none() -> None:
    bench = Bench()
    bench.deliver(b"a", 50, LONG)
    most = 0
    while len(bench.started) < 50:
        before = len(bench.started)
        await asyncio.sleep(0)
        most = max(most, len(bench.started) - before)
    assert most == 1
    await bench.all()
    await run_pending()
    bench.deliver(b"a", 1, LONG)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(bench.started) == 51, "nothing waits any more: the next one starts at once"


async def test_never_starts_handlers_that_are_cancelled_while_they_wait() -> None:
    bench = Bench()
    tasks = bench.deliver(b"a", 100, LONG)
    await run_pending()
    started = len(bench.started)
    assert 0 < started < 20
    for task in tasks:
        task.cancel()
    bench.deliver(b"b", 1, LONG)
    await bench.all()
    assert bench.started == [b"a"] * started + [b"b"]


async def test_peers_take_turns() -> None:
    bench = Bench()
    bench.deliver(b"a", 100, LONG)
    bench.deliver(b"b", 100, LONG)
    await run_pending()
    bench.deliver(b"c", 1, LONG)
    before = len(bench.started)
    await bench.all()
    assert bench.started.index(b"c") - before < 20, "it waits for a few of each of the others, not for all of them"
    late = bench.started[20:180]
    assert abs(late.count(b"a") - late.count(b"b")) < 20


async def test_starts_waiting_handlers_in_order_and_faster_once_they_are_short() -> None:
    bench = Bench()
    order: list[int] = []
    takes = LONG

    async def handle(number: int) -> None:
        if not bench.queue.has_time():
            await bench.queue.wait(b"a")
        order.append(number)
        bench.now += takes

    tasks = [asyncio.create_task(handle(number)) for number in range(500)]
    await run_pending()
    takes = SHORT
    turns = 0
    while len(order) < 500:
        turns += 1
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == list(range(500))
    assert turns < 30
