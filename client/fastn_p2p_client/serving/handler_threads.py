"""How handlers are called: in the event loop, or in threads of this process, those that are not ``async``."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from ..call_context import CallContext
from ..callables import is_async

__all__ = ["MAX_THREADS", "DaemonThreadPool", "awaitable", "by_name", "handler_threads"]

MAX_THREADS: Final = 64
"""At most so many handlers run in threads at a time; others wait for their turn."""

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreadPool:
    """Started as they are needed, and used again. None of them keeps the process from ending.

    That is what ``ThreadPoolExecutor`` does not promise: one handler that never returns would hold up the end of the
    program for ever.
    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """There are none: this process is a copy of the one that had them."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started = 0
        self._idle = 0
        """Threads that wait for work, less the work that waits for them."""

    def submit(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Calls it in a thread, with the context variables of whoever asks. Until it has begun it can be cancelled."""
        future: Future[T] = Future()
        call = partial(contextvars.copy_context().run, function, *arguments, **named)
        self._work.put((future, call))
        with self._lock:
            self._idle -= 1
            start = self._idle < 0 and self._started < self._limit
            if start:
                self._started += 1
                self._idle += 1
        if start:
            threading.Thread(target=self._serve, name="fastn-p2p handler", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            _do(*self._work.get())
            with self._lock:
                self._idle += 1


def _do(future: Future[Any], call: Callable[[], Any]) -> None:
    """Apart, so that a thread that waits keeps nothing of what it has done."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except StopIteration as error:  # which no future takes
        future.set_exception(RuntimeError(repr(error)))
    except BaseException as error:  # also what would end a thread: it has failed, and the thread goes on
        future.set_exception(error)


handler_threads: Final = DaemonThreadPool()
"""Those of this process."""

os.register_at_fork(after_in_child=handler_threads.reset_after_fork)


def awaitable(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The function itself if it is async, else one that calls it in the event loop, when it hands on a coroutine, or in
    a thread.

    When the one in a thread is cancelled, it goes on until the thread has ended: it counts as long as it takes up a
    place. Cancelled once more, it leaves the thread alone.
    """
    if inspect.iscoroutinefunction(function):
        return function
    if not isinstance(function, type) and inspect.iscoroutinefunction(call := getattr(function, "__call__", None)):  # noqa: B004
        return call
    if is_async(function):

        async def handed_on(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        return handed_on

    async def in_thread(*arguments: Any, **named: Any) -> Any:
        submitted = handler_threads.submit(function, *arguments, **named)
        ended = asyncio.wrap_future(submitted)
        try:
            result = await asyncio.shield(ended)
        except asyncio.CancelledError:
            for each in (*arguments, *named.values()):
                if isinstance(each, CallContext):
                    each.cancel()
            if not submitted.cancel() and not ended.done():
                await asyncio.wait([ended])
            if ended.done() and not ended.cancelled():
                ended.exception()  # nobody is told
            raise
        return await result if inspect.isawaitable(result) else result

    return in_thread


def by_name(
    call: Callable[..., Coroutine[Any, Any, Any]], names: tuple[str, ...]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A handler some of whose parameters cannot be given by position: all but the first are given by name."""

    async def named(first: Any, *others: Any) -> Any:
        return await call(first, **dict(zip(names, others, strict=True)))

    return named
