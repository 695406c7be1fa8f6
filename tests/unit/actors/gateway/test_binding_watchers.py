"""Removers wait until programs have stopped serving, and do not wait for programs that have gone."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_actors.gateway.binding_watchers import BindingWatchers
from fastn_p2p_client.errors import DaemonBusy
from tests.support.scenario import a_few_turns

OLD, NEW = b"old", b"new"


class Program:
    """Program that watches Shop."""

    def __init__(self, board: BindingWatchers, name: bytes = b"1") -> None:
        self._board = board
        self._name = name
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, seen: bytes, **failed: str) -> None:
        self._told.clear()

        async def wait() -> None:
            with self._board.watching(self._name, "Shop", seen, failed):
                await self._told.wait()

        self._task = asyncio.create_task(wait())
        await a_few_turns()

    async def is_told(self) -> None:
        """Return its reply. The program is busy from now on."""
        self._told.set()
        await a_few_turns()

    async def gives_up(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await a_few_turns()


def removing(board: BindingWatchers) -> asyncio.Task[None]:

    async def revision() -> bytes:
        return NEW

    return asyncio.create_task(board.wait_until_seen("Shop", revision, 10))


async def test_without_watchers_the_remover_does_not_wait() -> None:
    await removing(BindingWatchers())


async def test_the_remover_waits_until_the_program_polls_again() -> None:
    board = BindingWatchers()
    one, other = Program(board), Program(board, b"2")
    await one.ask(OLD)
    await other.ask(NEW)
    waiting = removing(board)
    await a_few_turns()
    await one.is_told()
    assert not waiting.done()
    await one.ask(NEW)
    await waiting


async def test_a_program_that_ends_or_is_cut_off_is_not_waited_for() -> None:
    board = BindingWatchers()
    program = Program(board)
    await program.ask(OLD)
    waiting = removing(board)
    await a_few_turns()
    await program.gives_up()
    await waiting
    await program.ask(OLD)
    await program.is_told()
    waiting = removing(board)
    await a_few_turns()
    assert not waiting.done()
    board.forget([b"1"])
    await waiting


async def test_a_program_that_is_busy_for_too_long_is_not_waited_for() -> None:
    now = 0.0
    board = BindingWatchers(lambda: now)
    program = Program(board)
    await program.ask(OLD, **{"alice/default": "no"})
    assert board.failures() == {("Shop", "alice/default"): "no"}
    await program.is_told()
    now = 14.0
    waiting = removing(board)
    await a_few_turns()
    assert not waiting.done()
    now = 16.0
    await waiting
    assert board.failures() == {}


async def test_watchers_are_woken_by_each_change_and_by_the_end() -> None:
    board = BindingWatchers()
    change = board.next_change()
    board.notify()
    assert change.is_set()
    change = board.next_change()
    assert not change.is_set()
    board.close()
    assert change.is_set()
    with pytest.raises(DaemonBusy):
        board.next_change()
