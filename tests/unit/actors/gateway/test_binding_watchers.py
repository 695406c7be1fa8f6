"""Removers wait until programs have stopped serving, and do not wait for programs that have gone."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_actors.gateway.binding_watchers import BindingWatchers
from fastn_p2p_client.errors import DaemonBusy
from tests.support.event_loop import run_pending

OLD, NEW = b"old", b"new"


class Program:
    """Program that watches Shop."""

    def __init__(self, watchers: BindingWatchers, name: bytes = b"1") -> None:
        self._board = watchers
        self._name = name
        self._notified = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, seen: bytes, **failed: str) -> None:
        self._notified.clear()

        async def wait() -> None:
            with self._board.watching(self._name, "Shop", seen, failed):
                await self._notified.wait()

        self._task = asyncio.create_task(wait())
        await run_pending()

    async def is_notified(self) -> None:
        """Return its reply. The program is busy from now on."""
        self._notified.set()
        await run_pending()

    async def gives_up(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await run_pending()


def removing(watchers: BindingWatchers) -> asyncio.Task[None]:

    async def revision() -> bytes:
        return NEW

    return asyncio.create_task(watchers.wait_until_seen("Shop", revision, 10))


async def test_without_watchers_the_remover_does_not_wait() -> None:
    await removing(BindingWatchers())  # does not wait for ever


async def test_the_remover_waits_until_the_program_polls_again() -> None:
    watchers = BindingWatchers()
    one, other = Program(watchers), Program(watchers, b"2")
    await one.watch(OLD)
    await other.watch(NEW)
    waiting = removing(watchers)
    await run_pending()
    await one.is_notified()
    assert not waiting.done()
    await one.watch(NEW)
    await waiting


async def test_a_program_that_ends_or_is_cut_off_is_not_waited_for() -> None:
    watchers = BindingWatchers()
    program = Program(watchers)
    await program.watch(OLD)
    waiting = removing(watchers)
    await run_pending()
    await program.gives_up()
    await waiting
    await program.watch(OLD)
    await program.is_notified()
    waiting = removing(watchers)
    await run_pending()
    assert not waiting.done()
    watchers.remove([b"1"])
    await waiting


async def test_a_program_that_is_busy_for_too_long_is_not_waited_for() -> None:
    now = 0.0
    watchers = BindingWatchers(lambda: now)
    program = Program(watchers)
    await program.watch(OLD, **{"alice/default": "no"})
    assert watchers.failures() == {("Shop", "alice/default"): "no"}
    await program.is_notified()
    now = 14.0
    waiting = removing(watchers)
    await run_pending()
    assert not waiting.done()
    now = 16.0
    await waiting
    assert watchers.failures() == {}


async def test_watchers_are_woken_by_each_change_and_by_the_end() -> None:
    watchers = BindingWatchers()
    change = watchers.next_change()
    watchers.notify()
    assert change.is_set()
    change = watchers.next_change()
    assert not change.is_set()
    watchers.close()
    assert change.is_set()
    with pytest.raises(DaemonBusy):
        watchers.next_change()
