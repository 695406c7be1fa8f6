"""Three patches of the generated Python code of the ``iroh`` 1.2.0 binding.

* The buffer writer copies bytes one at a time (4.5 MB/s measured); one ``memmove`` reaches 150-280 MB/s.
* The future runner takes an iteration of the event loop even for a future that is ready when first polled, as most
  writes are: 6,000 of 9,000 calls of an echo measured. The patched one continues at once.
* Objects are freed wherever Python collects garbage. That may be in a callback that the library makes while it holds a
  connection's lock. Freeing a stream takes the same lock, so the process hangs. The patched ones are freed by the event
  loop.

They are applied only to the version of the binding that has these defects. A test says when they can go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

from iroh import iroh_ffi

ffi: Any = iroh_ffi  # the internals of the binding have no types
_callbacks: list[Any] = []  # a C callback must outlive its last call
_installed = False
_stock_write: Any = ffi._UniffiRustBufferBuilder.write


def is_slow() -> bool:
    """Return whether the installed binding copies byte by byte, and so has the defects."""
    return "for i, byte in enumerate(value)" in inspect.getsource(_stock_write)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Make the binding use ``loop``. At the first call in a process, also patch the binding if it has the defects."""
    global _installed
    ffi.uniffi_set_event_loop(loop)
    if _installed:
        return
    _installed = True
    if is_slow():
        ffi._UniffiRustBufferBuilder.write = _write
        _patch_runner()
        _patch_finalizers()


class _EndedConnection:
    """Placeholder for a connection that has ended. It has no paths; any other use of it is an error."""

    def paths(self) -> list[Any]:
        return []


_ended: Any = _EndedConnection()


def ended_connection() -> iroh_ffi.Connection:
    """Return a placeholder for an ended connection.

    It holds no memory, while the binding's own object keeps the bytes that have come until it is freed.
    """
    ended: iroh_ffi.Connection = _ended
    return ended


def _write(builder: Any, value: Any) -> None:
    data = value if isinstance(value, bytes) else bytes(value)
    size = len(data)
    buffer = builder.rbuf
    if buffer.len + size > buffer.capacity:
        buffer = builder.rbuf = ffi._UniffiRustBuffer.reserve(buffer, size)
    ctypes.memmove(ctypes.addressof(buffer.data.contents) + buffer.len, data, size)
    buffer.len += size


class _Poll:
    """Poll of a Rust future. Its callback may run in any thread, also before the poll returns.

    The callback and the poller both append to ``arrivals``. Appending is atomic, so the second one sees that it is the
    second.
    """

    __slots__ = ("arrivals", "future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[int] | None = None
        self.arrivals: deque[int | None] = deque()

    def ready(self, code: int) -> None:
        self.arrivals.append(code)
        if len(self.arrivals) == 2 and self.future is not None:
            self.loop.call_soon_threadsafe(_resolve, self.future, code)


def _resolve(future: asyncio.Future[int], code: int) -> None:
    if not future.done():
        future.set_result(code)


def _patch_runner() -> None:
    polls = ffi._UniffiContinuationHandleMap
    call_with_error: Callable[..., Any] = ffi._uniffi_rust_call_with_error
    ready_code = ffi._UNIFFI_RUST_FUTURE_POLL_READY

    def continuation(handle: int, code: int) -> None:
        polls.remove(handle).ready(code)

    callback = ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(continuation)
    _callbacks.append(callback)

    async def run(future: Any, poll: Any, complete: Any, free: Any, lift: Any, error_converter: Any) -> Any:
        loop = ffi._uniffi_get_event_loop()
        try:
            while True:
                state = _Poll(loop)
                poll(future, callback, polls.insert(state))
                if state.arrivals:
                    code = state.arrivals[0]
                else:
                    waiting: asyncio.Future[int] = loop.create_future()
                    state.future = waiting
                    state.arrivals.append(None)
                    code = state.arrivals[0] if len(state.arrivals) == 2 else None
                    if code is None:
                        code = await waiting
                if code == ready_code:
                    break
            return lift(call_with_error(error_converter, complete, future))
        finally:
            free(future)

    ffi._uniffi_rust_call_async = run


class _Freed:
    """Placeholder for a freed object, with the one attribute that the finalizer of the object reads."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle


def _patch_finalizers() -> None:
    def patched(finalize: Callable[[Any], None]) -> Callable[[Any], None]:
        def free_later(thing: Any) -> None:
            handle = getattr(thing, "_handle", None)
            if handle is not None:
                # Without an event loop the process is about to end, which frees everything.
                with contextlib.suppress(RuntimeError):
                    ffi._uniffi_get_event_loop().call_soon_threadsafe(finalize, _Freed(handle))

        return free_later

    for kind in vars(ffi).values():
        if isinstance(kind, type) and "__del__" in vars(kind) and not issubclass(kind, Exception):
            setattr(kind, "__del__", patched(vars(kind)["__del__"]))  # noqa: B010  (mypy takes it for a method)
