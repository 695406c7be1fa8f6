"""Reads and writes of a QUIC stream through the binding's C ABI, without its generated layers.

The generated methods build argument tuples, converters and buffer streams for each call. Here arguments and functions
are prepared once, and bytes are copied once.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from iroh import iroh_ffi

from fastn_p2p_client.session.shared_memory import Chunk

from .rust_futures import PollFunction, address_of, poller

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream, SendStream

ffi: Any = iroh_ffi  # the internals of the binding have no types
_lib: Any = ffi._UniffiLib
_LENGTH_BYTES: Final = 4
"""Bytes of the length that precedes the bytes in a buffer, big-endian."""
_LARGE: Final = 64 * 1024
"""Bytes of a write from which it matters how fast the library copies it."""
_TRIALS: Final = 16
_REMEMBERED: Final = 512
"""Large writes until both positions of the stack are tried again."""
_PADDING: Final = (0,) * (7 if platform.machine() == "x86_64" else 0)
"""Arguments that the function does not have: the registers that are left, and 16 bytes of the stack. The caller removes
them, in the calling convention of this processor."""


class _Buffer(ctypes.Structure):
    """Buffer of the library, with its address as a number."""

    _fields_ = (("capacity", ctypes.c_uint64), ("len", ctypes.c_uint64), ("data", ctypes.c_void_p))


_Status: Any = ffi._UniffiRustCallStatus
_status_pointer: Any = ctypes.POINTER(_Status)
_NO_BUFFER: Final = _Buffer(0, 0, 0)
_u64: Final = ctypes.c_uint64


def _prepared(name: str, result: Any, *arguments: Any, keeps_lock: bool = False) -> Any:
    """Return a function of the library.

    Args:
        keeps_lock: keep the interpreter's lock during the call, which saves time. Only for functions that take no lock
            of a connection: iroh's thread may hold that one while it waits for the interpreter's.
    """
    prototype = (ctypes.PYFUNCTYPE if keeps_lock else ctypes.CFUNCTYPE)(result, *arguments)
    return prototype(address_of(getattr(_lib, name)))


_clone_receiving = _prepared("uniffi_iroh_ffi_fn_clone_recvstream", _u64, _u64, _status_pointer, keeps_lock=True)
_clone_sending = _prepared("uniffi_iroh_ffi_fn_clone_sendstream", _u64, _u64, _status_pointer, keeps_lock=True)
_new_read = _prepared("uniffi_iroh_ffi_fn_method_recvstream_read", _u64, _u64, ctypes.c_uint32, keeps_lock=True)
_new_write = _prepared("uniffi_iroh_ffi_fn_method_sendstream_write_all", _u64, _u64, _Buffer, keeps_lock=True)
_new_write_lower = _prepared(
    "uniffi_iroh_ffi_fn_method_sendstream_write_all", _u64, _u64, _Buffer, *(_u64,) * len(_PADDING), keeps_lock=True
)
_POSITIONS: Final = ((_new_write, ()), (_new_write_lower, _PADDING))
"""Functions that start a write at either position of the stack, and the arguments that they get besides its own."""
_reserve_buffer = _prepared("ffi_iroh_ffi_rustbuffer_reserve", _Buffer, _Buffer, _u64, _status_pointer, keeps_lock=True)
_free_buffer = _prepared("ffi_iroh_ffi_rustbuffer_free", None, _Buffer, _status_pointer, keeps_lock=True)
_complete_read = _prepared(
    "ffi_iroh_ffi_rust_future_complete_rust_buffer", _Buffer, _u64, _status_pointer, keeps_lock=True
)
_complete_write = _prepared("ffi_iroh_ffi_rust_future_complete_void", None, _u64, _status_pointer, keeps_lock=True)
_callback: Any = ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK
_poll_read: PollFunction = _prepared("ffi_iroh_ffi_rust_future_poll_rust_buffer", None, _u64, _callback, _u64)
_poll_write: PollFunction = _prepared("ffi_iroh_ffi_rust_future_poll_void", None, _u64, _callback, _u64)
_free_read = _prepared("ffi_iroh_ffi_rust_future_free_rust_buffer", None, _u64)
_free_write = _prepared("ffi_iroh_ffi_rust_future_free_void", None, _u64)

_status = _Status.default()
_status_address = ctypes.byref(_status)
_to_error: Any = ffi._UniffiFfiConverterTypeIrohError__as_error


def _raise_error() -> None:
    """Raise the error that the last call has left in the status."""
    status = _Status(_status.code, _status.error_buf)
    _status.code = 0
    _status.error_buf = ffi._UniffiRustBuffer.default()
    ffi._uniffi_check_call_status(_to_error, status)


def _read_result(future: int, room: memoryview | None = None) -> Chunk:
    """Return the bytes of a finished read: the filled part of ``room`` if there is one."""
    buffer = _complete_read(future, _status_address)
    if _status.code:
        _raise_error()
    source, size = buffer.data + _LENGTH_BYTES, buffer.len - _LENGTH_BYTES
    data: Chunk
    if room is None or not 0 < size <= len(room):
        data = ctypes.string_at(source, size)
    else:
        ctypes.memmove(ctypes.byref(ctypes.c_char.from_buffer(room)), source, size)
        data = room[:size]
    _free_buffer(buffer, _status_address)
    return data


def _finish(future: int) -> None:
    """Check the result of a finished write."""
    _complete_write(future, _status_address)
    if _status.code:
        _raise_error()


def _start_write(stream: SendStream, data: Chunk) -> int:
    size = len(data)
    source: Any = data
    if type(data) is not bytes:
        is_shared = isinstance(data, memoryview) and not data.readonly  # then the bytes are copied from where they are
        source = ctypes.byref(ctypes.c_char.from_buffer(data)) if is_shared else bytes(data)
    buffer = _reserve_buffer(_NO_BUFFER, size + _LENGTH_BYTES, _status_address)
    ctypes.memmove(buffer.data, size.to_bytes(_LENGTH_BYTES, "big"), _LENGTH_BYTES)
    ctypes.memmove(buffer.data + _LENGTH_BYTES, source, size)
    buffer.len = size + _LENGTH_BYTES
    return _start(_clone_sending(stream._handle, _status_address), buffer, size)


class StackPosition:
    """Position of the stack at which the library copies the bytes of a write faster.

    Problem: the library copies a write byte by byte, with a counter on the stack. On an AMD EPYC each byte takes
    1.36 ns at some positions of the stack and 1.09 at others. Where it starts is chance in each process.

    Idea: more arguments than the function has move its stack by 16 bytes. Both ways are timed in a few writes, and the
    faster one is used for the next ones. They share one call in the source: another kind of call moves the stack, too.

    Cost: the two ways take turns in 16 of 512 large writes.

    Not covered: writes that start at different depths of the stack. The way that suits most of them is used.
    """

    __slots__ = ("_clock", "_count", "_is_lower", "_times")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._count = 0
        self._is_lower = False
        self._times: tuple[list[float], list[float]] = ([], [])
        """Seconds for each byte of the trials in either way."""

    def start(self, stream: int, buffer: Any, size: int) -> int:
        """Start to write the buffer, which has so many bytes, and return the future."""
        if size < _LARGE:
            return _new_write(stream, buffer)  # type: ignore[no-any-return]
        turn, self._count = self._count, (self._count + 1) % _REMEMBERED
        is_trial = turn < _TRIALS
        is_lower = turn % 2 == 1 if is_trial else self._is_lower
        function, padding = _POSITIONS[is_lower]
        before = self._clock()
        future: int = function(stream, buffer, *padding)
        if is_trial:
            self._times[is_lower].append((self._clock() - before) / size)
        if turn == _TRIALS - 1:
            usual, lower = (sorted(times)[len(times) // 2] for times in self._times)
            self._is_lower = lower < usual
            self._times = ([], [])
        return future


_start: Final = StackPosition().start


async def read(stream: RecvStream, limit: int, room: memoryview | None = None) -> Chunk:
    """Wait for bytes, and return at most ``limit``; none at the end of the stream. Cancelling it loses no bytes.

    Args:
        room: memory of ``limit`` bytes that gets the bytes; then its filled part is returned.

    Raises:
        IrohError: the stream was reset, or its connection has ended.
    """
    polling = poller()
    waker = polling.waker()
    future = _new_read(_clone_receiving(stream._handle, _status_address), limit)
    try:
        if not polling.poll(_poll_read, future, waker):
            await polling.wait(_poll_read, future, waker)
        return _read_result(future, room)
    finally:
        _free_read(future)
        polling.release(waker)


def read_now(stream: RecvStream, limit: int, room: memoryview | None = None) -> Chunk:
    """Return at most ``limit`` of the bytes that have arrived; there may be none. ``room`` is that of ``read``.

    Raises:
        IrohError: the stream was reset, which the next read would report as its end, or its connection has ended.
    """
    polling = poller()
    waker = polling.waker()
    future = _new_read(_clone_receiving(stream._handle, _status_address), limit)
    try:
        return _read_result(future, room) if polling.poll(_poll_read, future, waker) else b""
    finally:
        _free_read(future)
        polling.release(waker)


async def write_all(stream: SendStream, data: Chunk) -> None:
    """Write all bytes.

    Raises:
        IrohError: the peer has stopped the stream, or its connection has ended.
    """
    polling = poller()
    waker = polling.waker()
    future = _start_write(stream, data)
    try:
        if not polling.poll(_poll_write, future, waker):
            await polling.wait(_poll_write, future, waker)
        _finish(future)
    finally:
        _free_write(future)
        polling.release(waker)


class StreamReader:
    """Reads of one stream, one at a time, without a task.

    Args:
        on_ready: called in the event loop when ``result`` may return bytes.
    """

    __slots__ = ("_future", "_poller", "_waker", "stream")

    def __init__(self, stream: RecvStream, on_ready: Callable[[], None]) -> None:
        self.stream = stream
        self._poller = poller()
        self._waker = self._poller.waker()
        self._waker.woken = on_ready
        self._future = 0

    def read(self, limit: int) -> bytes | None:
        """Begin a read of at most ``limit`` bytes. Return them if some have arrived; none at the end of the stream.

        Raises:
            IrohError: the stream was reset, or its connection has ended.
        """
        self._future = _new_read(_clone_receiving(self.stream._handle, _status_address), limit)
        return self.result()

    def result(self) -> bytes | None:
        """Return the bytes of the read, or None while it waits.

        Raises:
            IrohError: the stream was reset, or its connection has ended.
        """
        future = self._future
        if not future or not self._poller.poll(_poll_read, future, self._waker):
            return None
        try:
            return bytes(_read_result(future))
        finally:
            self._future = 0
            _free_read(future)

    def close(self) -> None:
        """End the read, which loses no bytes, and give the waker back. The reader cannot be used any more."""
        if self._future:
            future, self._future = self._future, 0
            _free_read(future)
        self._poller.release(self._waker)


class StreamWriter:
    """Writes to one stream, one at a time, without a task.

    Args:
        on_ready: called in the event loop when ``is_written`` may return True.
    """

    __slots__ = ("_future", "_poller", "_stream", "_waker")

    def __init__(self, stream: SendStream, on_ready: Callable[[], None]) -> None:
        self._stream = stream
        self._poller = poller()
        self._waker = self._poller.waker()
        self._waker.woken = on_ready
        self._future = 0

    def write(self, data: bytes) -> bool:
        """Begin a write. Return whether QUIC has accepted all bytes.

        Raises:
            IrohError: the peer has stopped the stream, or its connection has ended.
        """
        self._future = _start_write(self._stream, data)
        return self.is_written()

    def is_written(self) -> bool:
        """Return whether QUIC has accepted all bytes of the write.

        Raises:
            IrohError: the peer has stopped the stream, or its connection has ended.
        """
        future = self._future
        if not future or not self._poller.poll(_poll_write, future, self._waker):
            return False
        try:
            _finish(future)
        finally:
            self._future = 0
            _free_write(future)
        return True

    def close(self) -> None:
        """End the write, and give the waker back. The writer cannot be used any more."""
        if self._future:
            future, self._future = self._future, 0
            _free_write(future)
        self._poller.release(self._waker)
