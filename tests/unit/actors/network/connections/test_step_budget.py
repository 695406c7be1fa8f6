"""Turn budget of strangers: each iteration of the event loop does a bounded number of steps, fairly for connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from fastn_p2p_actors.network.connections.step_budget import (
    READ_BESIDE_CALLS,
    STEP_BYTES,
    STEPS_PER_ROUND,
    ConnectionSteps,
    StepBudget,
)

_MANY = 200
_FEW_ROUNDS = 8


class _Iterations:
    """Steps per iteration of the event loop, and their order."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.budget = StepBudget(self.loop)
        self.number = 0
        self.steps: Counter[int] = Counter()
        self.order: list[str] = []

    def connection(self, *, known: bool = False) -> ConnectionSteps:
        return ConnectionSteps(self.budget, lambda: known, self.loop)

    async def count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)

    async def step(self, steps: ConnectionSteps, name: str) -> None:
        if not steps.spend():
            await steps.wait()
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
    assert max(now.steps.values()) <= 2 * STEPS_PER_ROUND


async def test_a_connection_that_is_alone_takes_all_steps_of_an_iteration() -> None:
    now = _Iterations()
    alone = now.connection()
    await now.run(*(asyncio.create_task(now.step(alone, "")) for _ in range(_MANY)))
    async with asyncio.timeout(60):
        await alone.wait()
    taken = 1
    while alone.spend():
        taken += 1
    assert taken == 2 * STEPS_PER_ROUND


async def test_a_call_does_not_wait_for_the_queues_of_other_connections() -> None:
    now = _Iterations()
    greedy, honest = [now.connection() for _ in range(8)], now.connection()
    tasks = [asyncio.create_task(now.step(each, "greedy")) for _ in range(_MANY) for each in greedy]
    tasks.append(asyncio.create_task(now.step(honest, "honest")))
    await now.run(*tasks)
    assert now.order.index("honest") <= 4 * STEPS_PER_ROUND


async def test_steps_of_peers_in_the_address_book_never_wait() -> None:
    now = _Iterations()
    stranger, known = now.connection(), now.connection(known=True)
    while stranger.spend():
        pass
    assert all(known.spend() for _ in range(_MANY))
    assert not stranger.spend()


async def test_a_step_whose_task_was_cancelled_takes_no_turn() -> None:
    now = _Iterations()
    steps = now.connection()
    while steps.spend():
        pass
    given_up, waiting = (asyncio.create_task(steps.wait()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait_for(waiting, 60)
    assert not steps.has_waiting


async def test_idle_budgets_schedule_nothing() -> None:
    now = _Iterations()
    steps = now.connection()
    for _ in range(STEPS_PER_ROUND):
        assert steps.spend()
    assert not steps.spend()  # nobody waits, so no iteration has begun new counts
    await asyncio.sleep(0)
    assert not steps.spend()
    await asyncio.wait_for(steps.wait(), 60)
    assert steps.spend()


async def _until_round(now: _Iterations, number: int) -> None:
    while now.budget.rounds < number:  # noqa: ASYNC110 - rounds report nothing
        await asyncio.sleep(0)


def _queue(now: _Iterations, connections: list[ConnectionSteps]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(now.step(each, "queued")) for _ in range(_MANY) for each in connections]


async def test_a_connection_without_a_queue_never_waits_for_those_that_have_one() -> None:
    now = _Iterations()
    honest, queued = now.connection(), [now.connection() for _ in range(8)]
    tasks = _queue(now, queued)
    await _until_round(now, _FEW_ROUNDS)
    waited = 0
    while not all(task.done() for task in tasks):
        number = now.budget.rounds
        waited += not honest.spend()
        await _until_round(now, number + 1) if any(each.has_waiting for each in queued) else await asyncio.sleep(0)
    assert waited == 0
    await asyncio.gather(*tasks)


async def test_the_reserve_of_an_iteration_is_bounded() -> None:
    """Many connections without a queue get one turn more, together."""
    now = _Iterations()
    light = [now.connection() for _ in range(_MANY)]
    tasks = _queue(now, [now.connection() for _ in range(8)])
    await _until_round(now, _FEW_ROUNDS)
    assert sum(each.spend() for each in light) <= 3 * STEPS_PER_ROUND
    for task in tasks:
        task.cancel()


async def test_queues_pause_only_while_others_make_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = _Iterations()

    def pause(seconds: float, callback: Callable[[], None]) -> None:
        pauses.append(seconds)
        now.loop.call_soon(callback)

    monkeypatch.setattr(now.loop, "call_later", pause)
    honest, queued = now.connection(), [now.connection() for _ in range(8)]
    tasks = _queue(now, queued)
    await _until_round(now, _FEW_ROUNDS)
    assert pauses == []
    assert honest.spend()
    await _until_round(now, 2 * _FEW_ROUNDS)
    assert len(pauses) in {_FEW_ROUNDS, _FEW_ROUNDS - 1}
    await asyncio.gather(*tasks)
    assert len(pauses) < now.budget.rounds - _FEW_ROUNDS, "they end with the calls"


async def test_bytes_of_strangers_count_as_further_steps() -> None:
    now = _Iterations()
    stranger, other, known = now.connection(), now.connection(), now.connection(known=True)
    assert known.spend()
    known.charge_written(_MANY * STEP_BYTES)
    assert stranger.spend()
    stranger.charge_written(STEP_BYTES - 1)
    stranger.charge_read(STEP_BYTES - 1)
    assert other.spend()
    stranger.charge_read(STEPS_PER_ROUND * STEP_BYTES)
    assert not other.spend()
    await asyncio.wait_for(other.wait(), 60)


async def test_bytes_that_are_read_count_more_while_others_make_calls() -> None:
    now = _Iterations()
    stranger = now.connection()
    for now.budget.is_paused in (False, True):
        before = now.budget.left
        stranger.charge_read(STEP_BYTES)
        assert before - now.budget.left == (READ_BESIDE_CALLS if now.budget.is_paused else 1)


async def test_a_connection_without_a_queue_does_not_wait_for_the_bytes_of_others() -> None:
    """Not even if further connections like it have used up the reserve."""
    now = _Iterations()
    honest, queued = now.connection(), [now.connection() for _ in range(8)]
    tasks = _queue(now, queued)
    await _until_round(now, _FEW_ROUNDS)
    queued[0].charge_read(_MANY * STEPS_PER_ROUND * STEP_BYTES)
    now.budget.reserve = 0
    assert not honest.spend()
    number = now.budget.rounds
    await asyncio.wait_for(honest.wait(), 60)
    assert now.budget.rounds <= number + _FEW_ROUNDS
    for task in tasks:
        task.cancel()


async def test_a_connection_that_has_always_the_next_frame_ready_counts_as_a_queue() -> None:
    """A channel has one reader, so its frames never wait together."""
    now = _Iterations()
    flood, honest = now.connection(), now.connection()
    queues = _queue(now, [now.connection() for _ in range(8)])

    async def read_frames() -> None:
        while any(not task.done() for task in queues):
            if not flood.spend():
                await flood.wait()

    async def make_calls() -> None:
        while any(not task.done() for task in queues):
            await honest.wait()
            await _until_round(now, now.budget.rounds + 1)  # the reply

    tasks = [asyncio.create_task(read_frames()), asyncio.create_task(make_calls())]
    await _until_round(now, 2 * _FEW_ROUNDS)
    assert honest.is_light
    assert not flood.is_light
    for task in [*queues, *tasks]:
        task.cancel()


async def test_rounds_are_shorter_while_others_make_calls() -> None:
    now = _Iterations()
    honest, queued = now.connection(), [now.connection() for _ in range(8)]
    by_round: Counter[int] = Counter()

    async def step(steps: ConnectionSteps) -> None:
        if not steps.spend():
            await steps.wait()
        by_round[now.budget.rounds] += 1

    tasks = [asyncio.create_task(step(each)) for _ in range(_MANY) for each in queued]
    await _until_round(now, _FEW_ROUNDS)
    assert by_round[_FEW_ROUNDS - 1] == STEPS_PER_ROUND
    assert honest.spend()
    await _until_round(now, 2 * _FEW_ROUNDS)
    assert 0 < by_round[2 * _FEW_ROUNDS - 1] <= STEPS_PER_ROUND // 2
    for task in tasks:
        task.cancel()
