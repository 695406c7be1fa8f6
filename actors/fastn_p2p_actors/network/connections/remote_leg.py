"""Remote leg of a session: one bidirectional QUIC stream to a peer daemon.

The relay treats it like a local process. It answers ``EndOfStream`` with ``Ack`` once the stream is finished, grants
credit for the bytes that QUIC has accepted, and sends chunks only within the credit that it was granted. ``leg_writer``
is its writing half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.ipc.messages import (
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, RESET_LOST
from fastn_p2p_client.session.shared_memory import MORE_CREDIT, WINDOW, Chunk, SharedMemory

from ..transport.iroh_errors import stream_code
from .backpressure import Backpressure
from .coalescing_reader import CoalescingReader
from .leg_writer import Emit, LegWriter, Traffic, cancel, discard, wake
from .quic_stream import QuicStream
from .step_budget import ConnectionSteps
from .stream_pacing import StreamPacer

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream

CHUNK: Final = SessionData()
CHUNK_HEADER: Final = encode(CHUNK)


class RemoteLeg(LegWriter):
    """Remote leg of an open session: its reading half, and the messages of the relay.

    ``start`` follows once the local leg knows that the session is open, and ``attach`` once there is a stream. Messages
    that arrive before wait for the stream.

    Args:
        emit, traffic, pacer, steps: see ``LegWriter``.
        credit: bytes that the local leg accepts at first.
        early_data: bytes of the peer that have arrived ahead of the stream.
        backpressure: backpressure of the local process behind the relay.

    Attributes:
        peer_paused: True if the peer was asked to write nothing.
        paused_at: when it was asked.
        on_flow: called when bytes were read, or may be read again.
    """

    def __init__(
        self,
        emit: Emit,
        traffic: Traffic,
        pacer: StreamPacer,
        credit: int,
        *,
        early_data: bytes = b"",
        backpressure: Backpressure | None = None,
        steps: ConnectionSteps | None = None,
    ) -> None:
        super().__init__(emit, traffic, pacer, steps)
        self._backpressure = backpressure
        self._credit = credit
        self._early_data = early_data
        self._reading_stopped = False
        self._stop_before_attach: int | None = None
        """Code of a stop that was requested before there was a stream."""
        self._reader: asyncio.Task[None] | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._coalescing_reader: CoalescingReader | None = None
        self.peer_paused = False
        self.paused_at = 0.0
        self._memory: SharedMemory | None = None
        self.on_flow: Callable[[RemoteLeg], None] | None = None
        self._window = credit
        self._drained = False
        """True if the last read returned everything that had arrived."""

    def start(self) -> None:
        """Pass on the early data, if the credit suffices."""
        early_data = self._early_data
        if early_data and len(early_data) + CHUNK_COST <= self._credit:
            self._early_data = b""
            self._emit_data(early_data)

    def attach(self, stream: QuicStream, skip: int = 0) -> None:
        """Attach the stream, and end the directions that were ended before. Its first ``skip`` bytes (0 or 1) are no
        data."""
        self._stream = stream
        self._start_writing(stream.send)  # before the reader, whose first read takes longer
        if self._stop_before_attach is not None:
            self._close(stream.recv.stop(self._stop_before_attach))
        else:
            self._reader = self._loop.create_task(self._read(stream.recv, skip))

    def share(self, memory: SharedMemory) -> None:
        """Read bytes into the memory of the local leg from now on, which has room for more of them."""
        self._memory = memory
        self._credit += MORE_CREDIT
        self._window += MORE_CREDIT
        self._grant_at = WINDOW // 2
        wake(self._wake_reader)

    @property
    def receiving(self) -> RecvStream | None:
        """Stream that the peer writes to; None while there is none."""
        return None if self._stream is None else self._stream.recv

    @property
    def buffer(self) -> int:
        """Bytes of the buffer of a read that waits."""
        return 0 if self._coalescing_reader is None else self._coalescing_reader.waiting

    @property
    def has_backlog(self) -> bool:
        """Return whether the stream may have something to read."""
        if self._reader is None or self._reader.done():
            return False
        return not (self._drained or (self._coalescing_reader is not None and self._coalescing_reader.waiting))

    @property
    def is_slow(self) -> bool:
        """Return whether the local leg has used half of its window and granted no credit: it may soon stop to read."""
        return self._credit < self._window // 2

    @property
    def is_fast(self) -> bool:
        """Return whether the local leg has credit, and everything that has arrived has been read."""
        return self._credit >= self._window * 5 // 8 and not self.has_backlog

    def release(self) -> None:
        """Release the stream, because the connection has ended."""
        for task in (self._reader, self._writer, self._watcher, *self._closing):
            if task is not None:
                task.cancel()
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        self._reader = self._writer = self._watcher = None  # see cancel
        self._stream = self._coalescing_reader = None
        self._aborted = self._reading_stopped = self._finished = True  # so ``close`` has nothing left to do
        self._early_data = b""
        self._memory = None
        self._queue.clear()

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Receive a message of the local leg."""
        if type(message) is SessionData:
            self.queued += len(payload) + CHUNK_COST
            if type(payload) is memoryview:
                self._shared += len(payload)
            self._queue.append(payload)
            wake(self._wake_writer)
        elif isinstance(message, WindowUpdate):
            self._credit += message.size
            wake(self._wake_reader)
            if self.on_flow is not None:
                self.on_flow(self)
        elif isinstance(message, EndOfStream):
            self._eof = True
            wake(self._wake_writer)
        elif isinstance(message, ResetStream):
            self._stop_sending(message.code)
        elif isinstance(message, StopSending):
            self._stop_reading(message.code)
        elif isinstance(message, ErrorReply | Cancel):
            self.close()

    def close(self) -> None:
        """Stop reading, and reset the own direction unless it is complete. Complete data still arrives at the peer."""
        self._stop_watching()
        self._stop_reading_once(RESET_LOST)
        if not self._eof:  # a stream that is merely dropped looks complete to the peer
            self._stop_sending(RESET_LOST)
        self._memory = None
        self._emit = discard

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    async def _read(self, stream: RecvStream, skip: int) -> None:
        reader = self._coalescing_reader = CoalescingReader(cast(Any, stream), self._loop.time)
        try:
            while True:
                while self._credit <= CHUNK_COST:
                    self._wake_reader = self._loop.create_future()
                    await self._wake_reader
                    self._wake_reader = None
                if self._backpressure is not None and self._backpressure.is_high:
                    self._drained = False
                    await self._backpressure.wait()
                    continue
                if self._steps is not None and not self._steps.spend():
                    self._drained = False
                    await self._steps.wait()
                limit = min(MAX_CHUNK, self._credit - CHUNK_COST)
                data: Chunk
                if self._early_data:
                    data, self._early_data = self._early_data[:limit], self._early_data[limit:]
                else:
                    memory = self._memory
                    data = await reader.read(limit, None if memory is None or skip else memory.room(limit))
                    if self._steps is not None:
                        self._steps.charge_read(len(data))
                    self._traffic(0, len(data))
                    self._drained = len(data) < limit
                    if not data:
                        self._watch_now()
                        self._emit(encode(EndOfStream()), EndOfStream(), b"")
                        return
                    if skip:
                        data, skip = data[skip:], 0
                        if not data:
                            continue
                self._emit_data(data)
        except IrohError as error:
            code = stream_code(error)
            if code is None:
                self._lost(error)
            else:
                self._emit_reset(code)

    def _emit_data(self, data: Chunk) -> None:
        self._credit -= len(data) + CHUNK_COST
        self._emit(CHUNK_HEADER, CHUNK, data)
        if self.on_flow is not None:
            self.on_flow(self)

    def _stop_reading(self, code: int) -> None:
        if self._stop_reading_once(code):
            self._emit_reset(code)

    def _stop_reading_once(self, code: int) -> bool:
        """Stop reading; return False if there is nothing more to read, or reading was stopped before."""
        if self._reading_stopped or (self._reader is not None and self._reader.done()):
            return False
        self._reading_stopped = True
        cancel(self._reader)
        self._reader = None
        if self._stream is not None:
            self._close(self._stream.recv.stop(code))
        else:
            self._stop_before_attach = code
        return True

    def _emit_reset(self, code: int) -> None:
        reset = ResetStream(code)
        self._emit(encode(reset), reset, b"")
