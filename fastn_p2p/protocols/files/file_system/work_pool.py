"""Thread pool for work that peers cause, in short steps and with a fair share for each peer.

A small request of a peer can cost much: hashing 40 GiB, or listing a directory of a million names. Such work is cut
into steps of some milliseconds. A peer has one step running or waiting for a thread at a time, and threads serve
waiting steps in order. So n busy peers get an nth each, and the request of another peer waits for at most one step of
each. Work ends with the task that awaits its steps: when a session is reset, or a call cancelled, no further step
begins. The pool has its own threads, so that steps do not delay those of ``asyncio.to_thread``, which read and write
blocks of files.
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
"""Steps of all peers that run at the same time: hashing alone takes a core."""


class WorkPool:
    """Pool of threads, used inside one event loop at a time. They start with the first step, and end with the process.

    Args:
        threads: steps that run at the same time.
        each: steps of one peer that run, or wait for a thread, at the same time.
    """

    def __init__(self, threads: int = _THREADS, *, each: int = 1) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="files")
        self._limit = threads
        self._each = each
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = asyncio.Semaphore(threads)
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def share(self, peer: str) -> Share:
        """Return the share of a peer, common to all of its sessions and calls."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the event loop before has ended, and no task waits in it
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
        """Call ``step`` in a thread and return its result. It should take some milliseconds.

        If the caller is cancelled, the step still runs to its end, and counts against the share until then.
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
            running.exception()  # marks it as retrieved, if the caller was cancelled
