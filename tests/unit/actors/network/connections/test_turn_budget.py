"""Turn budget of strangers: each iteration of the event loop does a bounded number of steps, fairly for connections."""

from __future__ import annotations

import asyncio
from collections import Counter

from fastn_p2p_actors.network.connections.turn_budget import STEPS_PER_TURN, ConnectionTurns, TurnBudget

_MANY = 200


class _Iterations:
    """Steps per iteration of the event loop, and their order."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.budget = TurnBudget(self.loop)
        self.number = 0
        self.steps: Counter[int] = Counter()
        self.order: list[str] = []

    def connection(self, *, known: bool = False) -> ConnectionTurns:
        return ConnectionTurns(self.budget, lambda: known, self.loop)

    async def count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)

    async def step(self, turns: ConnectionTurns, name: str) -> None:
        if not turns.spend():
            await turns.wait()
        self.steps[self.number] += 1
        self.order.append(name)

    async def run(self, *tasks: asyncio.Task[None]) -> None:
        counter = self.loop.create_task(self.count())
        await asyncio.gather(*tasks)
        counter.cancel()


async def test_an_iteration_does_a_bounded_number_of_steps_of_strangers() -> None:
    now = _Iterations()
    connections = [now.connection() for _ in range(8)]
    await now.run(*(asyncio.create_task(now.step(each, "")) for _ in range(_MANY) for each in connections))
    assert sum(now.steps.values()) == 8 * _MANY
    assert max(now.steps.values()) <= 2 * STEPS_PER_TURN


async def test_a_call_does_not_wait_for_the_queues_of_other_connections() -> None:
    now = _Iterations()
    greedy, honest = [now.connection() for _ in range(8)], now.connection()
    tasks = [asyncio.create_task(now.step(each, "greedy")) for _ in range(_MANY) for each in greedy]
    tasks.append(asyncio.create_task(now.step(honest, "honest")))
    await now.run(*tasks)
    assert now.order.index("honest") <= 4 * STEPS_PER_TURN


async def test_steps_of_peers_in_the_address_book_never_wait() -> None:
    now = _Iterations()
    stranger, known = now.connection(), now.connection(known=True)
    while stranger.spend():
        pass
    assert all(known.spend() for _ in range(_MANY))
    assert not stranger.spend()


async def test_a_step_whose_task_was_cancelled_takes_no_turn() -> None:
    now = _Iterations()
    turns = now.connection()
    while turns.spend():
        pass
    given_up, waiting = (asyncio.create_task(turns.wait()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait_for(waiting, 5)
    assert not turns.has_waiting


async def test_idle_budgets_schedule_nothing() -> None:
    now = _Iterations()
    turns = now.connection()
    for _ in range(STEPS_PER_TURN):
        assert turns.spend()
    assert not turns.spend()  # nobody waits, so no iteration has begun new counts
    await asyncio.sleep(0)
    assert not turns.spend()
    await asyncio.wait_for(turns.wait(), 5)
    assert turns.spend()
