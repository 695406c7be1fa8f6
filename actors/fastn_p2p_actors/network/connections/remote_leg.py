"""A session's leg to another daemon: one bidirectional QUIC stream.

Towards the relay it behaves as a process that reads and writes would: it answers ``EndOfStream`` with ``Ack`` once the
stream is finished, grants credit for what QUIC has taken, and sends chunks only within the credit it was granted.
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
from .stream_pacing import (
    BLOCK,
    StreamPacer,
)

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, RecvStream, SendStream

log = logging.getLogger(__name__)

_CHUNK: Final = SessionData()
_CHUNK_HEADER: Final = encode(_CHUNK)
_LOOK_FOR_STOP: Final = 0.05
"""Seconds after which a stream that still stands is watched for its reader's end: short ones are not worth it."""
_CODE: Final = re.compile(r"^(Reset|Stopped)\((\d+)\)")

Emit: TypeAlias = Callable[[bytes, Message, bytes], None]
"""Takes header, message and payload of what the other daemon's side says."""
Traffic: TypeAlias = Callable[[int, int], None]
"""Told of bytes (sent, received)."""


class QuicStream(NamedTuple):
    """A bidirectional stream. Each is asked for once: the binding makes a new object whenever it is."""

    send: SendStream
    recv: RecvStream
    number: int
    """As QUIC has it (RFC 9000, section 2.1)."""

    @classmethod
    async def of(cls, stream: BiStream) -> QuicStream:
        send = stream.send()
        initiator, _, _, index = (await send.id()).split()  # "client bidirectional stream 0"
        return cls(send, stream.recv(), 4 * int(index) + (initiator == "server"))


class RemoteLeg:
    """Made when the session is open; ``start`` follows once the side behind the relay knows it, ``attach`` once there
    is a stream. What is said before waits for it.

    Args:
        credit: how many bytes the side behind the relay takes at first.
        leftover: has come already, ahead of the stream.
        backpressure: of the local process behind the relay.
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
    ) -> None:
        self._backpressure = backpressure
        self._loop = asyncio.get_running_loop()
        self._stream: QuicStream | None = None
        self._emit = emit
        self._traffic = traffic
        self._pacer = pacer
        self._credit = credit
        self._leftover = early_data
        self._queue: deque[bytes] = deque()
        self.queued = 0
        """Bytes that wait to be written, with the cost of each chunk. The relay bounds them: no chunk beyond the credit
        that this leg has granted gets here."""
        self._eof = False
        self._finished = False
        self._refused = False
        self._codes_before_attach: tuple[int | None, int | None] = (None, None)
        """Codes with which the two directions, ours first, have ended before there was a stream."""
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._inflow: CoalescingReader | None = None
        self._paused: asyncio.Future[None] | None = None
        """Done when the peer wants to be written to again."""
        self.peer_paused = False
        """True if the peer was asked to write nothing."""
        self.paused_at = 0.0
        """When."""
        self.on_flow: Callable[[RemoteLeg], None] | None = None
        """Called whenever something has been read, or may be read again."""
        self._window = credit
        self._drained = False
        """True if the last read brought everything that had come."""
        self._aborted = False
        self._closing: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._watch_soon: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Pass on what has come already."""
        leftover = self._leftover
        if leftover and len(leftover) + CHUNK_COST <= self._credit:
            self._leftover = b""
            self._emit_data(leftover)

    def attach(self, stream: QuicStream, skip: int = 0) -> None:
        """This is its stream, whose first ``skip`` bytes (0 or 1) are nobody's. What has ended meanwhile, ends now."""
        self._stream = stream
        reset, stop = self._codes_before_attach
        if reset is not None:
            self._close(stream.send.reset(reset))
        else:  # before the reader, whose first look takes its time
            self._writer = self._loop.create_task(self._write(stream.send))
        if stop is not None:
            self._close(stream.recv.stop(stop))
        else:
            self._reader = self._loop.create_task(self._read(stream.recv, skip))
        if not self._aborted:
            self._watch_soon = self._loop.call_later(_LOOK_FOR_STOP, self._watch, stream.send)

    @property
    def number(self) -> int | None:
        """Of its stream, once there is one."""
        return None if self._stream is None else self._stream.number

    @property
    def receiving(self) -> RecvStream | None:
        """What the peer writes to, once there is a stream."""
        return None if self._stream is None else self._stream.recv

    @property
    def buffer(self) -> int:
        """Bytes that a read of the stream takes while it waits."""
        return 0 if self._inflow is None else self._inflow.waiting

    @property
    def has_backlog(self) -> bool:
        """Return whether something may wait to be read on its stream."""
        if self._reader is None or self._reader.done():
            return False
        return not (self._drained or (self._inflow is not None and self._inflow.waiting))

    @property
    def is_slow(self) -> bool:
        """Whether the side behind the relay has taken half its window and given nothing back: soon it stops reading."""
        return self._credit < self._window // 2

    @property
    def is_fast(self) -> bool:
        """Return whether it can take more, and everything that has come has been read."""
        return self._credit >= self._window * 5 // 8 and not self.has_backlog

    def pause(self) -> None:
        """Write nothing more until ``resume``: the peer does not read as fast."""
        if self._paused is None and not self._aborted:
            self._paused = self._loop.create_future()

    def resume(self) -> None:
        """Write again."""
        _wake(self._paused)
        self._paused = None

    def release(self) -> None:
        """The connection has ended: hold its stream no longer."""
        for task in (self._reader, self._writer, self._watcher, *self._closing):
            if task is not None:
                task.cancel()
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        self._reader = self._writer = self._watcher = None  # see _cancel
        self._stream = self._inflow = None
        self._leftover = b""
        self._queue.clear()

    def first_block(self, limit: int) -> bytes:
        """What there is to write already, at most ``limit`` bytes: it may go another way than the stream."""
        if not self._queue or len(self._queue[0]) > limit:
            return b""
        data, cost = self._next_block(limit)
        self._grant(cost)
        return data

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
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
        """Nothing more is wanted from the stream, and nothing more will be sent. What is complete still arrives."""
        self._aborted = True
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        _cancel(self._watcher)
        self._watcher = None
        self.resume()
        self._refuse(RESET_LOST)
        if not self._eof:  # a stream that is merely dropped looks complete to the peer
            self._stop_sending(RESET_LOST)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, stream: SendStream) -> None:
        queue = self._queue
        try:
            while True:
                if self._paused is not None:
                    await self._paused
                elif queue:
                    data, cost = self._next_block()
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
        """Write it all, and let others of the loop have their turn: QUIC takes a large block without waiting."""
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
        """What is written next, and what it costs: small chunks together, large ones as they are."""
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
        """The other side reads no more."""
        _cancel(self._writer)
        self._writer = None
        stop = StopSending(code)
        self._emit(encode(stop), stop, b"")

    def _watch_now(self) -> None:
        """Its direction is complete; whether the other side goes on reading matters by now."""
        if self._watch_soon is not None and self._stream is not None and not self._aborted and not self._finished:
            self._watch_soon.cancel()
            if self._watcher is None:
                self._watch(self._stream.send)

    def _watch(self, stream: SendStream) -> None:
        self._watcher = self._loop.create_task(self._watch_for_stop(stream))

    async def _watch_for_stop(self, stream: SendStream) -> None:
        try:
            code = await stream.stopped()
        except IrohError:
            return  # the reader hears of it too
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

    # ── in ───────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, stream: RecvStream, skip: int) -> None:
        inflow = self._inflow = CoalescingReader(stream, self._loop.time)
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
                limit = min(MAX_CHUNK, self._credit - CHUNK_COST)
                if self._leftover:
                    data, self._leftover = self._leftover[:limit], self._leftover[limit:]
                else:
                    data = await inflow.read(limit)
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
        if self._refuse(code):
            self._emit_reset(code)

    def _refuse(self, code: int) -> bool:
        """Read no more; False when there is nothing more to read, or that was said already."""
        if self._refused or (self._reader is not None and self._reader.done()):
            return False
        self._refused = True
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

    # ── both ─────────────────────────────────────────────────────────────────────────────────────

    def _lost(self, error: IrohError) -> None:
        log.debug("a session's stream: %s", error.message())
        failure = ErrorReply.of(ConnectionLost(what="the connection to the peer"))
        self._emit(encode(failure), failure, b"")
        self.close()

    def _close(self, step: Any) -> None:
        """Run the last step of a direction: a read or write that is cancelled has to let go of the stream first."""

        async def run() -> None:
            try:
                await step
            except IrohError as error:
                log.debug("ending a session's stream: %s", error.message())

        task = self._loop.create_task(run())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task of a leg, which forgets it then.

    A cancelled task keeps its error, with the frame in which it was, the leg, and the block that was read last. If the
    leg kept the task, all of that would stay until the next full garbage collection: 73 MiB of 1,600 sessions.
    """
    if task is not None:
        task.cancel()


def code_of(error: IrohError) -> int | None:
    """The code with which the other side has ended the stream, or None when it was something else."""
    found = _CODE.match(error.message())
    return int(found[2]) if found else None
