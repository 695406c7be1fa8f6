"""The threads in which handlers run that are not ``async``."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["MAX_THREADS", "Threads", "handler_threads"]

MAX_THREADS: Final = 64
"""At most so many handlers run in threads at a time; others wait for their turn."""

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Started as they are needed, and used again. None of them keeps the process from ending.

    That is what ``ThreadPoolExecutor`` does not promise: one handler that never returns would hold up the end of the
    program for ever.
    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self.forget()

    def forget(self) -> None:
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


handler_threads: Final = Threads()
"""Those of this process."""

os.register_at_fork(after_in_child=handler_threads.forget)
