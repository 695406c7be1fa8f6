"""Calls that wait for a daemon that is there and does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import DaemonBusy, DaemonNotRunning
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.home_lock import HomeLock
from tests.support.stub_actors import KEYS
from tests.support.stub_daemon import short_path

CALLS = 500


@pytest.fixture
def home() -> Iterator[Home]:
    with short_path() as path:
        yield Home(path)


async def outcomes(client: Client, timeout: float) -> set[type[BaseException | None]]:
    calls = (client.call("alice", KEYS[0], "Echo", timeout=timeout) for _ in range(CALLS))
    return {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)}


async def test_one_task_polls_for_all_that_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    daemon_pid = Home.daemon_pid

    def counted(home: Home) -> int | None:
        nonlocal looks
        looks += 1
        return daemon_pid(home)

    async def scenario() -> None:
        async with Client(home) as client:
            assert await outcomes(client, 0.7) == {DaemonBusy}

    lock = HomeLock.acquire(home)  # as a daemon does, of which no process listens
    monkeypatch.setattr(Home, "daemon_pid", counted)
    monkeypatch.setattr("fastn_p2p_client.daemon_connection._BUSY_AFTER", 0.0)  # the machine may stand still meanwhile
    await scenario()
    lock.release()
    assert 1 < looks < CALLS


async def test_all_waiting_calls_fail_when_the_daemon_ends(home: Home) -> None:
    lock = HomeLock.acquire(home)
    async with Client(home) as client:
        waiting = asyncio.create_task(outcomes(client, 50))
        while not client._daemon.waiting:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        lock.release()
        assert await waiting == {DaemonNotRunning}
