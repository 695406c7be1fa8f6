"""Writing half of a remote leg: the chunks of the local leg, written to the QUIC stream of a session."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Message, StopSending, WindowUpdate, encode
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import Chunk

from ..transport.iroh_errors import stream_code
from .quic_stream import QuicStream
from .step_budget import ConnectionSteps
from .stream_pacing import BLOCK, StreamPacer

if TYPE_CHECKING:
    from iroh.iroh_ffi import SendStream

log = logging.getLogger(__name__)

_WATCH_AFTER: Final = 0.05
"""Seconds after which an open stream is watched for a stop by its reader. Short streams are not worth the cost."""

Emit: TypeAlias = Callable[[bytes, Message, Chunk], None]
"""Receives header, message and payload of every message of a leg."""
Traffic: TypeAlias = Callable[[int, int], None]
"""Counts bytes (sent, received)."""


class LegWriter(ABC):
    """Writing half of a remote leg. ``RemoteLeg`` adds the reading half.

    It is a base class and no object of its own, because a reference from one half to the other and back would keep the
    buffers of an ended session until the next full garbage collection.

    Args:
        emit: receives the messages of this leg.
        traffic: counts bytes.
        pacer: slows the stream down while calls are in flight.
        steps: steps of the connection. Each block that is read or written is one.

    Attributes:
        queued: bytes that wait to be written, with the cost of each chunk. The relay bounds them: it passes on no chunk
            beyond the credit that this leg has granted.
    """

    def __init__(self, emit: Emit, traffic: Traffic, pacer: StreamPacer, steps: ConnectionSteps | None) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._stream: QuicStream | None = None
        self._emit = emit
        self._traffic = traffic
        self._pacer = pacer
        self._queue: deque[Chunk] = deque()
        self.queued = 0
        self._shared = 0
        """Queued bytes that lie in shared memory."""
        self._grant_at = SESSION_WINDOW // 2
        """Written bytes after which the local leg gets credit for them, if more are queued: each message wakes its
        process."""
        self._eof = False
        self._finished = False
        self._reset_before_attach: int | None = None
        """Code of a reset that was requested before there was a stream."""
        self._writer: asyncio.Task[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._paused: asyncio.Future[None] | None = None
        """Done when the peer reads again; None while it is not paused."""
        self._aborted = False
        self._closing: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._watch_soon: asyncio.TimerHandle | None = None

    def _start_writing(self, stream: SendStream) -> None:
        """Write to the stream, or reset it if that was requested before."""
        if self._reset_before_attach is not None:
            self._close(stream.reset(self._reset_before_attach))
        else:
            self._writer = self._loop.create_task(self._write(stream))
        if not self._aborted:
            self._watch_soon = self._loop.call_later(_WATCH_AFTER, self._watch, stream)

    @property
    def held(self) -> int:
        """Bytes that wait to be written, without those in shared memory, which has a limit of its own."""
        return self.queued - self._shared

    @property
    def number(self) -> int | None:
        """Number of the stream; None while there is none."""
        return None if self._stream is None else self._stream.number

    def pause(self) -> None:
        """Write nothing more until ``resume``, because the peer does not read as fast."""
        if self._paused is None and not self._aborted:
            self._paused = self._loop.create_future()

    def resume(self) -> None:
        """Write again."""
        wake(self._paused)
        self._paused = None

    def first_block(self, limit: int) -> bytes:
        """Remove and return queued bytes, at most ``limit``: the first ones travel with the acceptance of the
        session."""
        if not self._queue or len(self._queue[0]) > limit:
            return b""
        block, cost = self._next_block(limit)
        data = bytes(block)  # before there is credit for it
        self.queued -= cost
        self._grant(cost)
        return data

    def _stop_watching(self) -> None:
        """Watch for a stop no longer, and keep no writer waiting for a paused peer."""
        self._aborted = True
        if self._watch_soon is not None:
            self._watch_soon.cancel()
        cancel(self._watcher)
        self._watcher = None
        self.resume()

    async def _write(self, stream: SendStream) -> None:
        queue, steps = self._queue, self._steps
        written = 0
        try:
            while True:
                if self._paused is not None:
                    await self._paused
                elif queue:
                    if steps is not None and not steps.spend():
                        await steps.wait()
                    data, cost = self._next_block()
                    if steps is not None:
                        steps.charge_written(len(data))
                    await self._write_out(stream, data)
                    self._traffic(len(data), 0)
                    self.queued -= cost
                    written += cost
                    if written >= self._grant_at or not queue:
                        self._grant(written)
                        written = 0
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

    async def _write_out(self, stream: SendStream, data: Chunk) -> None:
        """Write all bytes, and yield to the event loop: QUIC accepts a large block without waiting."""
        pacer = self._pacer
        if not pacer.is_active:
            await cast(Any, stream).write_all(data)
            await asyncio.sleep(0)
            return
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            if pacer.is_active:
                await pacer.wait(len(block))
            await cast(Any, stream).write_all(block)

    def _grant(self, cost: int) -> None:
        credit = WindowUpdate(cost)
        self._emit(encode(credit), credit, b"")

    def _next_block(self, limit: int = MAX_CHUNK) -> tuple[Chunk, int]:
        """Remove and return the next block and its cost. Small chunks are merged, large ones are not."""
        queue = self._queue
        block = self._next_chunk()
        cost = len(block) + CHUNK_COST
        if not queue or len(block) + len(queue[0]) > limit:
            return block, cost
        parts, size = [block], len(block)
        while queue and size + len(queue[0]) <= limit:
            parts.append(self._next_chunk())
            size += len(parts[-1])
        return b"".join(parts), size + CHUNK_COST * len(parts)

    def _next_chunk(self) -> Chunk:
        chunk = self._queue.popleft()
        if type(chunk) is memoryview:
            self._shared -= len(chunk)
        return chunk

    def _write_failed(self, error: IrohError) -> None:
        code = stream_code(error)
        if code is None:
            self._lost(error)
        elif not self._finished:
            self._stopped(code)

    def _stopped(self, code: int) -> None:
        """The peer has stopped reading."""
        cancel(self._writer)
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
        if self._steps is not None and not self._steps.spend():
            await self._steps.wait()
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
        cancel(self._writer)
        self._writer = None
        if self._stream is not None:
            self._close(self._stream.send.reset(code))
        else:
            self._reset_before_attach = code

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def close(self) -> None:
        """End both directions."""

    def _lost(self, error: IrohError) -> None:
        log.debug("the stream of a session has failed: %s", error.message())
        reply = ErrorReply.of(ConnectionLost(what="the connection to the peer"))
        self._emit(encode(reply), reply, b"")
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


def discard(header: bytes, message: Message, payload: Chunk) -> None:
    """Discard a message: the relay has not begun, or it has ended and must not be kept in memory by its leg."""


def wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task of a leg. The leg must drop its reference to it.

    A cancelled task keeps its error, with the frame in which it was, the leg, and the last block that was read. If the
    leg kept the task, all of that would stay until the next full garbage collection: 73 MiB with 1,600 sessions.
    """
    if task is not None:
        task.cancel()
