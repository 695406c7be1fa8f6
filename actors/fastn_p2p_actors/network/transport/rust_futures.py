"""Polling of the ``iroh`` binding's futures, without the interpreter's lock on iroh's thread.

The binding polls a future with a callback and a number. iroh's thread makes the callback when the future may go on. The
stock binding makes it a Python function: each wake-up creates a thread state, waits for the interpreter's lock, and
crosses into the event loop. Here the callback is a function of libc, which needs no interpreter::

                       poll with STORE(word)
      ready: word 0 ◄──────────┬──────────► word 1: woken during the poll, poll again
                               │ word unchanged: STORE is registered
                               ▼
                       poll with RING(eventfd)
      word unchanged, or 1 ◄───┴──────────► word 0: RING has displaced STORE, so it is registered.
      (ready or woken meanwhile,            iroh's thread writes to the eventfd, the event loop reads it,
      so begin again)                       and begins again

* STORE is ``pthread_barrierattr_setpshared(word, code)``, which stores the code. It tells a future that is ready from
  one that waits, in the thread that polls.
* RING is ``eventfd_write(fd, code)``. The code of a wake-up is 1, which makes the eventfd readable; that of a ready
  future is 0, which does nothing. So it can only follow STORE, which reports the ready ones.
* A registered callback that is displaced by the next one, or by freeing the future, is made with code 0.
* A wake-up that comes late, for a future that has ended, is made on an eventfd that is never closed. It only causes one
  more poll of the eventfd's next user.

Neither libc nor the binding promises that. A test of libc at start and the first future that waits show whether it
holds. If not, a Python function is the callback, as in the stock binding.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

from iroh import iroh_ffi

ffi: Any = iroh_ffi  # the internals of the binding have no types

_READY: Final = 0
_WOKEN: Final = 1
_UNCHANGED: Final = 2
_MAX_POLLS: Final = 16
"""Polls in a row of a future that wakes itself, before other work of the event loop runs."""
MAX_DESCRIPTORS: Final = 1024
"""eventfds of a process."""

PollFunction: TypeAlias = Callable[[int, Any, int], None]
"""Polls the future with this handle. The callback is called with the number, and a code."""
_CALLBACK: Any = ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK
_callbacks: Final[list[Any]] = []
"""Python functions that are callbacks. C code knows them, so each must outlive its last call."""


class Waker:
    """Wake-up of one user, who polls one future at a time.

    Attributes:
        woken: called in the event loop when the future may go on. It may be called when nothing has happened.
    """

    __slots__ = ("descriptor", "woken")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.woken: Callable[[], None] = _ignore

    def wake(self) -> None:
        """Wake the user."""
        self.woken()

    def read(self) -> None:
        """Reset the eventfd, and wake the user."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        self.woken()


def _ignore() -> None:
    """Ignore a late wake-up of a future that has ended."""


class Poller:
    """Polls futures for one event loop, in its thread.

    Args:
        fast: use functions of libc as callbacks if that works here.

    Attributes:
        is_fast: true if they are used. Even then, wakers above ``MAX_DESCRIPTORS`` use a Python function.
    """

    _unwatched: Final[list[int]] = []
    """eventfds that no event loop watches. They are never closed; see the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, fast: bool = True) -> None:
        self._loop = loop
        self._word = ctypes.c_int(0)
        self._address = ctypes.addressof(self._word)
        self._wakers: list[Waker] = []
        self._descriptors = 0
        """eventfds that the event loop watches."""
        self._has_displaced = False
        self._slow = _CallbackPoller(loop)
        self.is_fast = fast and self._prepare()

    def _prepare(self) -> bool:
        """Find the functions of libc. Return whether they do what they should."""
        libc = ctypes.CDLL(None)
        try:
            self._store = _CALLBACK(address_of(libc.pthread_barrierattr_setpshared))
            self._ring = _CALLBACK(address_of(libc.eventfd_write))
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except (AttributeError, OSError):
            return False
        try:
            return all(self._is_stored_and_signalled(code, descriptor) for code in (_READY, _WOKEN))
        finally:
            os.close(descriptor)

    def _is_stored_and_signalled(self, code: int, descriptor: int) -> bool:
        self._word.value = _UNCHANGED
        self._store(self._address, code)
        self._ring(descriptor, code)
        signalled = 0
        with suppress(BlockingIOError):
            signalled = os.eventfd_read(descriptor)
        return self._word.value == code == signalled

    def waker(self) -> Waker:
        """Return a waker. The caller sets ``woken``, and releases the waker once its future is freed."""
        if self._wakers:
            return self._wakers.pop()
        if not self.is_fast or self._descriptors >= MAX_DESCRIPTORS:
            return Waker(-1)
        unwatched = Poller._unwatched
        try:
            waker = Waker(unwatched.pop() if unwatched else os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        except OSError:  # the process has no descriptor left
            return Waker(-1)
        self._loop.add_reader(waker.descriptor, waker.read)
        self._descriptors += 1
        return waker

    def release(self, waker: Waker) -> None:
        """Take a waker back."""
        waker.woken = _ignore
        if waker.descriptor >= 0:
            self._wakers.append(waker)

    def close(self) -> None:
        """Stop watching the descriptors of idle wakers, for the next event loop."""
        while self._wakers:
            self._use_python_function(self._wakers.pop())

    def _use_python_function(self, waker: Waker) -> None:
        """Make a waker use no descriptor."""
        if not self._loop.is_closed():
            self._loop.remove_reader(waker.descriptor)
        Poller._unwatched.append(waker.descriptor)
        self._descriptors -= 1
        waker.descriptor = -1

    def poll(self, function: PollFunction, future: int, waker: Waker) -> bool:
        """Return whether the future is ready. If it is not, the waker is called when it may be."""
        if waker.descriptor < 0:
            return self._slow.poll(function, future, waker)
        word, store, address = self._word, self._store, self._address
        for _ in range(_MAX_POLLS):
            word.value = _UNCHANGED
            function(future, store, address)
            code: int = self._word.value  # the poll has changed it, which type checkers do not see in `word`
            if code == _READY:
                return True
            if code == _UNCHANGED:
                function(future, self._ring, waker.descriptor)
                if self._word.value == _READY:
                    self._has_displaced = True
                    return False
        if not self._has_displaced:  # not in sixteen polls, so the binding works in another way
            self.is_fast = False
            self._use_python_function(waker)
            return self._slow.poll(function, future, waker)
        self._loop.call_soon(waker.wake)
        return False

    async def wait(self, function: PollFunction, future: int, waker: Waker) -> None:
        """Wait until a future that was polled in vain is ready."""
        while True:
            waiting: asyncio.Future[None] = self._loop.create_future()
            waker.woken = partial(_resolve, waiting)
            await waiting
            if self.poll(function, future, waker):
                return


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Polled:
    """Poll with a Python callback, which may run in any thread, also before the poll returns.

    The callback and the poller both append to ``arrivals``. Appending is atomic, so the second one sees that it is the
    second.
    """

    __slots__ = ("arrivals", "waker")

    def __init__(self, waker: Waker) -> None:
        self.waker = waker
        self.arrivals: deque[int | None] = deque()


class _CallbackPoller:
    """Poller with a Python function as the callback. It works with every libc, and is slower."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._polled: dict[int, _Polled] = {}
        self._numbers = itertools.count(1)
        self._callback = _CALLBACK(self._called)
        _callbacks.append(self._callback)

    def _called(self, number: int, code: int) -> None:
        polled = self._polled.pop(number)
        polled.arrivals.append(code)
        if len(polled.arrivals) == 2:
            self._loop.call_soon_threadsafe(polled.waker.wake)

    def poll(self, function: PollFunction, future: int, waker: Waker) -> bool:
        for _ in range(_MAX_POLLS):
            polled = _Polled(waker)
            number = next(self._numbers)
            self._polled[number] = polled
            function(future, self._callback, number)
            if not polled.arrivals:
                polled.arrivals.append(None)
                if polled.arrivals[0] is None:
                    return False
            if polled.arrivals[0] == _READY:
                return True
        self._loop.call_soon(waker.wake)
        return False


def address_of(function: Any) -> int:
    """Return the address of a C function."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


_pollers: Final[list[Poller]] = []
"""Poller of the event loop in use, once there is one."""


def use_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Poll for this event loop from now on."""
    while _pollers:
        _pollers.pop().close()
    _pollers.append(Poller(loop))


def poller() -> Poller:
    """Return the poller of the event loop in use."""
    return _pollers[0]


async def run(future: int, poll: PollFunction, complete: Any, free: Any, lift: Any, error_converter: Any) -> Any:
    """Run a future of the binding, and return its result. It replaces the binding's own runner."""
    polling = poller()
    waker = polling.waker()
    try:
        if not polling.poll(poll, future, waker):
            await polling.wait(poll, future, waker)
        return lift(ffi._uniffi_rust_call_with_error(error_converter, complete, future))
    finally:
        free(future)
        polling.release(waker)
