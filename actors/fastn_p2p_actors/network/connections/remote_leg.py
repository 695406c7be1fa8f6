"""Remote leg of a session: one bidirectional QUIC stream to a peer daemon.

The relay treats it like a local process. It answers ``EndOfStream`` with ``Ack`` once the stream is finished, grants
credit for the bytes that QUIC has accepted, and sends chunks only within the credit that it was granted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import (
    Ack,
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

from .backpressure import Backpressure
from .coalescing_reader import CoalescingReader
from .stream_pacing import BLOCK, StreamPacer
from .turn_budget import ConnectionTurns

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, RecvStream, SendStream

log = logging.getLogger(__name__)

_CHUNK: Final = SessionData()
_CHUNK_HEADER: Final = encode(_CHUNK)
_WATCH_AFTER: Final = 0.05
"""Seconds after which an open stream is watched for a stop by its reader. Short streams are not worth the cost."""
_CODE: Final = re.compile(r"^(Reset|Stopped)\((\d+)\)")

Emit: TypeAlias = Callable[[bytes, Message, bytes], None]
"""Receives header, message and payload of every message of a leg."""
Traffic: TypeAlias = Callable[[int, int], None]
"""Counts bytes (sent, received)."""


class QuicStream(NamedTuple):
    """Bidirectional QUIC stream. Its parts are read once, because the binding makes a new object for each read."""

    send: SendStream
    recv: RecvStream
    number: int
    """Stream id of QUIC (RFC 9000, section 2.1)."""

    @classmethod
    async def of(cls, stream: BiStream) -> QuicStream:
        """Read the parts of a stream."""
        send = stream.send()
        initiator, _, _, index = (await send.id()).split()  # "client bidirectional stream 0"
        return cls(send, stream.recv(), 4 * int(index) + (initiator == "server"))


class RemoteLeg:
    """Remote leg of an open session.

    ``start`` follows once the local leg knows that the session is open, and ``attach`` once there is a stream. Messages
    that arrive before wait for the stream.

    Args:
        emit: receives the messages of this leg.
        traffic: counts bytes.
        pacer: slows the stream down while calls are in flight.
        credit: bytes that the local leg accepts at first.
        early_data: bytes of the peer that have arrived ahead of the stream.
        backpressure: backpressure of the local process behind the relay.
        turns: steps of the connection. Each block that is read or written is one.

    Attributes:
        queued: bytes that wait to be written, with the cost of each chunk. The relay bounds them: it passes on no chunk
            beyond the credit that this leg has granted.
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
        turns: ConnectionTurns | None = None,
    ) -> None:
        self._backpressure = backpressure
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._stream: QuicStream | None = None
        self._emit = emit
        self._traffic = traffic
        self._pacer = pacer
        self._credit = credit
        self._early_data = early_data
        self._queue: deque[bytes] = deque()
        self.queued = 0
        self._eof = False
        self._finished = False
        self._reading_stopped = False
        self._codes_before_attach: tuple[int | None, int | None] = (None, None)
        """Codes of reset and stop that were requested before there was a stream."""
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._coalescing_reader: CoalescingReader | None = None
        self._paused: asyncio.Future[None] | None = None
        """Done when the peer reads again; None while it is not paused."""
        self.peer_paused = False
        self.paused_at = 0.0
        self.on_flow: Callable[[RemoteLeg], None] | None = None
        self._window = credit
        self._drained = False
        """True if the last read returned everything that had arrived."""
        self._aborted = False
        self._closing: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._watch_soon: asyncio.TimerHandle | None = None

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
        reset, stop = self._codes_before_attach
        if reset is not None:
            self._close(stream.send.reset(reset))
        else:  # before the reader, whose first read takes longer
            self._writer = self._loop.create_task(self._write(stream.send))
        if stop is not None:
            self._close(stream.recv.stop(stop))
        else:
            self._reader = self._loop.create_task(self._read(stream.recv, skip))
        if not self._aborted:
            self._watch_soon = self._loop.call_later(_WATCH_AFTER, self._watch, stream.send)

    @property
    def number(self) -> int | None:
        """Number of the stream; None while there is none."""
        return None if self._stream is None else self._stream.number

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

    def pause(self) -> None:
        """Write nothing more until ``resume``, because the peer does not read as fast."""
        if self._paused is None and not self._aborted:
            self._paused = self._loop.create_future()

    def resume(self) -> None:
        """Write again."""
        _wake(self._paused)
        self._paused = None

    def release(self) -> None:
        """Release the stream, because the connection has ended."""
        for task in (self._reader, self._writer, self._watcher, *self._closing):
            if task is not None:
                task.cancel()
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        self._reader = self._writer = self._watcher = None  # see _cancel
        self._stream = self._coalescing_reader = None
        self._aborted = self._reading_stopped = self._finished = True  # so ``close`` has nothing left to do
        self._early_data = b""
        self._queue.clear()

    def first_block(self, limit: int) -> bytes:
        """Remove and return queued bytes, at most ``limit``: the first ones travel with the acceptance of the
        session."""
        if not self._queue or len(self._queue[0]) > limit:
            return b""
        data, cost = self._next_block(limit)
        self._grant(cost)
        return data

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def receive(self, header: bytes, message: Message, payload: bytes) -> None:
        """Receive a message of the local leg."""
        if type(message) is SessionData:
            self.queued += len(payload) + CHUNK_COST
            self._queue.append(payload)
            _wake(self._wake_writer)
        elif isinstance(message, WindowUpdate):
            self._credit += message.size
            _wake(self._wake_reader)
            if self.on_flow is not None:
                self.on_flow(self)
        elif isinstance(message, EndOfStream):
            self._eof = True
            _wake(self._wake_writer)
        elif isinstance(message, ResetStream):
            self._stop_sending(message.code)
        elif isinstance(message, StopSending):
            self._stop_reading(message.code)
        elif isinstance(message, ErrorReply | Cancel):
            self.close()

    def close(self) -> None:
        """Stop reading, and reset the own direction unless it is complete. Complete data still arrives at the peer."""
        self._aborted = True
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        _cancel(self._watcher)
        self._watcher = None
        self.resume()
        self._stop_reading_once(RESET_LOST)
        if not self._eof:  # a stream that is merely dropped looks complete to the peer
            self._stop_sending(RESET_LOST)

    # ── to the peer ──────────────────────────────────────────────────────────────────────────────

    async def _write(self, stream: SendStream) -> None:
        queue, turns = self._queue, self._turns
        try:
            while True:
                if self._paused is not None:
                    await self._paused
                elif queue:
                    if turns is not None and not turns.spend():
                        await turns.wait()
                    data, cost = self._next_block()
                    if turns is not None:
                        turns.charge(len(data))
                    await self._write_out(stream, data)
                    self._traffic(len(data), 0)
                    self._grant(cost)
                elif self._eof:
                    await stream.finish()
                    self._finished = True
                    self._emit(encode(Ack()), Ack(), b"")
                    return
                else:
                    self._wake_writer = self._loop.create_future()
                    await self._wake_writer
                    self._wake_writer = None
        except IrohError as error:
            self._write_failed(error)

    async def _write_out(self, stream: SendStream, data: bytes) -> None:
        """Write all bytes, and yield to the event loop: QUIC accepts a large block without waiting."""
        pacer = self._pacer
        if not pacer.is_active:
            await stream.write_all(data)
            await asyncio.sleep(0)
            return
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            if pacer.is_active:
                await pacer.wait(len(block))
            await stream.write_all(block)

    def _grant(self, cost: int) -> None:
        self.queued -= cost
        credit = WindowUpdate(cost)
        self._emit(encode(credit), credit, b"")

    def _next_block(self, limit: int = MAX_CHUNK) -> tuple[bytes, int]:
        """Remove and return the next block and its cost. Small chunks are merged, large ones are not."""
        queue = self._queue
        block = queue.popleft()
        cost = len(block) + CHUNK_COST
        if not queue or len(block) + len(queue[0]) > limit:
            return block, cost
        parts, size = [block], len(block)
        while queue and size + len(queue[0]) <= limit:
            parts.append(queue.popleft())
            size += len(parts[-1])
        return b"".join(parts), size + CHUNK_COST * len(parts)

    def _write_failed(self, error: IrohError) -> None:
        code = code_of(error)
        if code is None:
            self._lost(error)
        elif not self._finished:
            self._stopped(code)

    def _stopped(self, code: int) -> None:
        """The peer has stopped reading."""
        _cancel(self._writer)
        self._writer = None
        stop = StopSending(code)
        self._emit(encode(stop), stop, b"")

    def _watch_now(self) -> None:
        """Watch for a stop at once: the peer has ended its own direction, so reads will not report it."""
        if self._watch_soon is not None and self._stream is not None and not self._aborted and not self._finished:
            self._watch_soon.cancel()
            if self._watcher is None:
                self._watch(self._stream.send)

    def _watch(self, stream: SendStream) -> None:
        self._watcher = self._loop.create_task(self._watch_for_stop(stream))

    async def _watch_for_stop(self, stream: SendStream) -> None:
        if self._turns is not None and not self._turns.spend():
            await self._turns.wait()
        try:
            code = await stream.stopped()
        except IrohError:
            return  # the reader gets the same error
        if code is not None and not self._finished:
            self._stopped(code)

    def _stop_sending(self, code: int) -> None:
        if self._finished:
            return
        self._finished = True
        self._queue.clear()
        _cancel(self._writer)
        self._writer = None
        if self._stream is not None:
            self._close(self._stream.send.reset(code))
        else:
            self._codes_before_attach = code, self._codes_before_attach[1]

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    async def _read(self, stream: RecvStream, skip: int) -> None:
        reader = self._coalescing_reader = CoalescingReader(stream, self._loop.time)
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
                if self._turns is not None and not self._turns.spend():
                    self._drained = False
                    await self._turns.wait()
                limit = min(MAX_CHUNK, self._credit - CHUNK_COST)
                if self._early_data:
                    data, self._early_data = self._early_data[:limit], self._early_data[limit:]
                else:
                    data = await reader.read(limit)
                    if self._turns is not None:
                        self._turns.charge(len(data))
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
            code = code_of(error)
            if code is None:
                self._lost(error)
            else:
                self._emit_reset(code)

    def _emit_data(self, data: bytes) -> None:
        self._credit -= len(data) + CHUNK_COST
        self._emit(_CHUNK_HEADER, _CHUNK, data)
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
        _cancel(self._reader)
        self._reader = None
        if self._stream is not None:
            self._close(self._stream.recv.stop(code))
        else:
            self._codes_before_attach = self._codes_before_attach[0], code
        return True

    def _emit_reset(self, code: int) -> None:
        reset = ResetStream(code)
        self._emit(encode(reset), reset, b"")

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    def _lost(self, error: IrohError) -> None:
        log.debug("the stream of a session has failed: %s", error.message())
        failure = ErrorReply.of(ConnectionLost(what="the connection to the peer"))
        self._emit(encode(failure), failure, b"")
        self.close()

    def _close(self, step: Any) -> None:
        """Run the last step of a direction in a task, because a cancelled read or write must release the stream
        first."""

        async def run() -> None:
            try:
                await step
            except IrohError as error:
                log.debug("ending the stream of a session: %s", error.message())

        task = self._loop.create_task(run())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task of a leg. The leg must drop its reference to it.

    A cancelled task keeps its error, with the frame in which it was, the leg, and the last block that was read. If the
    leg kept the task, all of that would stay until the next full garbage collection: 73 MiB with 1,600 sessions.
    """
    if task is not None:
        task.cancel()


def code_of(error: IrohError) -> int | None:
    """Return the code with which the peer has ended the stream, or None if the error has another cause."""
    found = _CODE.match(error.message())
    return int(found[2]) if found else None
