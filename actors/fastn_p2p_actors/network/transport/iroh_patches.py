"""Four patches of the generated Python code of the ``iroh`` 1.2.0 binding.

* The buffer writer copies bytes one at a time (4.5 MB/s measured); one ``memmove`` reaches 150-280 MB/s.
* The future runner takes an iteration of the event loop even for a future that is ready when first polled, as most
  writes are, and iroh's thread waits for the interpreter's lock at each wake-up. See ``rust_futures``.
* Reads and writes of a stream pass generated layers that take longer than the library. See ``stream_calls``.
* Objects are freed wherever Python collects garbage. This may be in a callback that the library makes while it holds a
  connection's lock. Freeing a stream takes the same lock, so the process hangs. The patched ones are freed by the event
  loop.

They are applied only to the version of the binding that has these defects. A test says when they can go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

from iroh import iroh_ffi

from . import rust_futures, stream_calls

ffi: Any = iroh_ffi  # the internals of the binding have no types
_installed = False
_stock_write: Any = ffi._UniffiRustBufferBuilder.write


def is_slow() -> bool:
    """Return whether the installed binding copies byte by byte, and so has the defects.

    Its compiled code tells: reading its source would keep all 10,000 lines of it in memory, 1.2 MB.
    """
    return "enumerate" in _stock_write.__code__.co_names


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Make the binding use ``loop``. At the first call in a process, also patch the binding if it has the defects."""
    global _installed
    ffi.uniffi_set_event_loop(loop)
    rust_futures.use_loop(loop)
    if _installed:
        return
    _installed = True
    if is_slow():
        ffi._UniffiRustBufferBuilder.write = _write
        ffi._uniffi_rust_call_async = rust_futures.run
        ffi.RecvStream.read = stream_calls.read
        ffi.RecvStream.read_now = stream_calls.read_now
        ffi.SendStream.write_all = stream_calls.write_all
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
