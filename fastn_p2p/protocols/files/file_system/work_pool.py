"""Threads that do what peers cause, in short steps and with a fair share for each peer.

A peer's small request can cost much: hashing 40 GiB, looking through a directory of a million names. Such work is cut
into steps of some milliseconds. A peer has one step running or waiting for a thread at a time, and threads serve
waiting steps in order: so n busy peers get an nth each, and a request of another one waits for at most one step of
each. Work ends with the task that awaits its steps: when a session is reset, or a call cancelled, no further step
begins. Threads of their own keep steps from those of ``asyncio.to_thread``, which read and write blocks of files.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 2
"""Steps at a time, of all peers: hashing alone takes a core."""


class WorkPool:
    """Used inside one event loop at a time; its threads start with the first step, and end with the process.

    Args:
        threads: steps that run at a time.
        each: steps of one peer that run, or wait for a thread, at a time.
    """

    def __init__(self, threads: int = _THREADS, *, each: int = 1) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="files")
        self._limit = threads
        self._each = each
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = asyncio.Semaphore(threads)
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def share(self, peer: str) -> Share:
        """Return the share of a peer, which all of its sessions and calls use together."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # nobody waits in the one before
            self._loop = loop
            self._threads = asyncio.Semaphore(self._limit)
            self._shares.clear()
        share = self._shares.get(peer)
        if share is None:
            share = self._shares[peer] = Share(self._executor, self._threads, self._each)
        return share


class Share:
    """Share of one peer in a ``WorkPool``."""

    def __init__(self, executor: ThreadPoolExecutor, threads: asyncio.Semaphore, each: int) -> None:
        self._executor = executor
        self._threads = threads
        self._own = asyncio.Semaphore(each)

    async def run(self, step: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Return what ``step`` returns, called in a thread. It should take some milliseconds.

        Cancelled meanwhile, the step goes on to its end, and counts against the share until then.
        """
        await self._own.acquire()
        try:
            await self._threads.acquire()
        except BaseException:
            self._own.release()
            raise
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, functools.partial(step, *arguments, **options))
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    def _ended(self, running: asyncio.Future[T]) -> None:
        self._threads.release()
        self._own.release()
        if not running.cancelled():
            running.exception()  # known, also when nobody awaits it any more
