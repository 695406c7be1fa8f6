"""Two repairs to the generated Python of the ``iroh`` 1.2.0 binding, and nothing else.

* Its buffer writer copies bytes one at a time (4.5 MB/s measured); one ``memmove`` reaches 150-280 MB/s.
* Its future runner takes a turn of the event loop even for a future that is ready when first polled, which
  most writes are: 6,000 of 9,000 calls of an echo measured. Ours goes on at once.

Both are applied only where the slow version is found; a test says when they can go.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

from iroh import iroh_ffi

__all__ = ["install", "is_slow"]

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
        _repair_runner()


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


def _repair_runner() -> None:
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
