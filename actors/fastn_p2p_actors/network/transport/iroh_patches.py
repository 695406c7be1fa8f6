"""Three repairs to the generated Python of the ``iroh`` 1.2.0 binding, and nothing else.

* Its buffer writer copies bytes one at a time (4.5 MB/s measured); one ``memmove`` reaches 150-280 MB/s.
* Its future runner takes a turn of the event loop even for a future that is ready when first polled, which
  most writes are: 6,000 of 9,000 calls of an echo measured. Ours goes on at once.
* Its objects are freed wherever Python collects garbage. That may be in a callback that the library makes while it
  holds a connection's lock, and freeing a stream takes that lock: the process hangs. Ours are freed by the event loop.

They are applied only where the slow version is found; a test says when they can go.
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

__all__ = ["ended_connection", "install", "is_slow"]

ffi: Any = iroh_ffi  # its internals have no types
_keep: list[Any] = []  # C callbacks must outlive their last call
_installed = False


def is_slow() -> bool:
    """Whether the installed binding still copies byte by byte."""
    return "for i, byte in enumerate(value)" in inspect.getsource(ffi._UniffiRustBufferBuilder.write)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Point the binding at ``loop`` (once per process) and repair it where it is slow."""
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
    """Instead of a connection that has ended: it has no paths, and whatever else is wanted of it is an error."""

    def paths(self) -> list[Any]:
        return []


_ended: Any = _EndedConnection()


def ended_connection() -> iroh_ffi.Connection:
    """A connection that has ended, and holds nothing: the binding's keeps what has come until it is freed."""
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
    """One poll of a Rust future; its callback may come from any thread, also before the poll returns.

    Both sides append to ``sides``; whoever comes second knows it, because appending is atomic.
    """

    __slots__ = ("future", "loop", "sides")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[int] | None = None
        self.sides: deque[int | None] = deque()

    def ready(self, code: int) -> None:
        self.sides.append(code)
        if len(self.sides) == 2 and self.future is not None:
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
    _keep.append(callback)

    async def run(future: Any, poll: Any, complete: Any, free: Any, lift: Any, error_converter: Any) -> Any:
        loop = ffi._uniffi_get_event_loop()
        try:
            while True:
                state = _Poll(loop)
                poll(future, callback, polls.insert(state))
                if state.sides:
                    code = state.sides[0]
                else:
                    waiting: asyncio.Future[int] = loop.create_future()
                    state.future = waiting
                    state.sides.append(None)
                    code = state.sides[0] if len(state.sides) == 2 else None
                    if code is None:
                        code = await waiting
                if code == ready_code:
                    break
            return lift(call_with_error(error_converter, complete, future))
        finally:
            free(future)

    ffi._uniffi_rust_call_async = run


class _Freed:
    """As much of an object as its finalizer looks at."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle


def _patch_finalizers() -> None:
    def repaired(finalize: Callable[[Any], None]) -> Callable[[Any], None]:
        def free_later(thing: Any) -> None:
            handle = getattr(thing, "_handle", None)
            if handle is not None:
                # Without a loop the process is about to end, and that frees everything.
                with contextlib.suppress(RuntimeError):
                    ffi._uniffi_get_event_loop().call_soon_threadsafe(finalize, _Freed(handle))

        return free_later

    for kind in vars(ffi).values():
        if isinstance(kind, type) and "__del__" in vars(kind) and not issubclass(kind, Exception):
            setattr(kind, "__del__", repaired(vars(kind)["__del__"]))  # noqa: B010  (mypy takes it for a method)
