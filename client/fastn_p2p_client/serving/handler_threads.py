"""Threads for handlers that are not ``async``, and how handlers are called."""

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
from ..request_id import SERVED_REQUEST, served_request

MAX_THREADS: Final = 64
"""Threads that run handlers at the same time, at most. Further handlers wait."""

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreadPool:
    """Thread pool whose threads never keep the process alive. Threads start when needed, and are reused.

    ``ThreadPoolExecutor`` joins its threads at exit. One handler that never returns would then keep the program from
    ending.
    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        """
        Args:
            limit: threads at most.
        """
        self._limit = limit
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget all threads and their work: a forked child has none of them."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started = 0
        self._idle = 0
        """Threads that wait for work, less the work that waits for them."""

    def submit(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Call a function in a thread, with the caller's context variables.

        Returns:
            A future of the result. It can be cancelled until the call has begun.
        """
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
            _run(*self._work.get())
            with self._lock:
                self._idle += 1


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    """Run one call. A function of its own, so that an idle thread keeps no reference to its last call."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except StopIteration as error:  # a future does not accept it
        future.set_exception(RuntimeError(repr(error)))
    except BaseException as error:  # also SystemExit: the call has failed, and the thread goes on
        future.set_exception(error)


handler_threads: Final = DaemonThreadPool()
"""Thread pool of this process."""

os.register_at_fork(after_in_child=handler_threads.reset_after_fork)


def run_in_thread_if_sync(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return an ``async`` function that calls the handler: directly if it is ``async``, else in a thread.

    If the call in the thread is cancelled, it goes on until the thread has returned, because it occupies one of the
    threads. If it is cancelled a second time, it ends and leaves the thread alone.
    """
    if inspect.iscoroutinefunction(function):
        return function
    if not isinstance(function, type) and inspect.iscoroutinefunction(call := getattr(function, "__call__", None)):  # noqa: B004
        return call
    if is_async(function):

        async def call_and_await(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        return call_and_await

    async def in_thread(*arguments: Any, **named: Any) -> Any:
        SERVED_REQUEST.set(served_request())  # for its log: the thread gets a copy of the context
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
                ended.exception()  # read it, or asyncio logs that nothing did
            raise
        return await result if inspect.isawaitable(result) else result

    return in_thread


def pass_by_name(
    call: Callable[..., Coroutine[Any, Any, Any]], names: tuple[str, ...]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a function that passes all arguments but the first by these names, for keyword-only parameters."""

    async def named(first: Any, *others: Any) -> Any:
        return await call(first, **dict(zip(names, others, strict=True)))

    return named
