"""Sessions' streams between daemons on their way to being open.

``Approach`` is the leg of a session that we open at a peer, ``Arrival`` that of one that a peer opens here. On the
stream, frames come first: the request (preceded by the delegation of its source) one way, the answer the other way.
What follows an ``Accept`` is the session's bytes; from then on a ``StreamLeg`` does the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    HandlerFailed,
    LocalError,
    P2PError,
    StreamReset,
    error_from,
)
from fastn_p2p_client.limits import MAX_PAYLOAD, RESET_FAILED, RESET_LOST, SESSION_WINDOW
from fastn_p2p_client.messages import ApplicationFailure, Cancel, Failure, Message, Opened, encode

from .stream_leg import Emit, Halves, StreamLeg, code_of
from .way import Way
from .wire import Opening, Wire, WireAccept, WireFailure, WireOpen, WireRefusal, frame

if TYPE_CHECKING:
    from .peer_sessions import PeerSessions

__all__ = ["Approach", "Arrival", "give_up", "read_frame", "refuse", "said_by_peer"]

log = logging.getLogger(__name__)

_READ: Final = 16 * 1024
_LOOK_FOR_END: Final = 0.05
"""Seconds after which a peer that waits for an answer is watched for its end: most answers come sooner."""
_ACCEPT: Final = frame(WireAccept())


async def read_frame(stream: Halves, opening: Opening) -> tuple[Wire, bytes]:
    """The next frame at the stream's beginning.

    Raises:
        BadMessage, PayloadTooLarge: what comes is no frame.
        ConnectionLost: the stream has ended before.
        IrohError: the stream has been reset, or the connection has ended.
    """
    while True:
        found = opening.next()
        if found is not None:
            return found
        data = await stream.recv.read(_READ)
        if not data:
            raise ConnectionLost(what="a session's stream, before there was an answer,")
        opening.feed(data)


class Approach:
    """A session that we open at a peer. Reports to ``emit`` like any leg; ``Failure`` is the last.

    Raises:
        Overloaded: there are too many sessions with this peer.
        ConnectionLost: the connection has ended.
    """

    def __init__(self, sessions: PeerSessions, request: WireOpen, payload: bytes, credit: int, emit: Emit) -> None:
        sessions.begin(self)
        self._sessions = sessions
        self._credit = credit
        self._emit = emit
        self._stream: Halves | None = None
        self._leg: StreamLeg | None = None
        self._task = asyncio.get_running_loop().create_task(self._open(sessions.opening(request, payload)))

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        if self._leg is not None:
            self._leg.take(header, message, payload)
        elif isinstance(message, Cancel | Failure):
            self._task.cancel()
            if self._stream is not None:
                give_up(self._stream, RESET_LOST)

    def close(self) -> None:
        self._sessions.end(self)
        if self._leg is not None:
            self._leg.close()

    def lost(self) -> None:
        """The connection has ended."""
        failure = Failure.of(ConnectionLost(what="the connection to the peer"))
        self._emit(encode(failure), failure, b"")

    def _cut_off(self, code: int | None) -> None:
        """The stream has ended in place of an answer. A reset overtakes what was said before it, that the session
        stands for instance: whoever opened it is told the code, as if that had been heard."""
        if code is None or code == RESET_LOST:
            self.lost()
        else:
            failure = Failure.of(StreamReset(reset_code=code))
            self._emit(encode(failure), failure, b"")

    async def _open(self, request: bytes) -> None:
        sessions = self._sessions
        opening = Opening(MAX_PAYLOAD)
        try:
            stream = self._stream = await sessions.open_stream()
            await stream.send.write_all(request)
            sessions.count(len(request), 0)
            answer, data = await read_frame(stream, opening)
        except IrohError as error:
            log.debug("opening a session over %s: %s", sessions.name, error.message())
            self._cut_off(code_of(error))
            return
        except ConnectionLost as error:
            log.debug("opening a session over %s: %s", sessions.name, error)
            self.lost()
            return
        except P2PError as error:
            sessions.shed(str(error))
            return
        sessions.count(0, opening.taken)
        if isinstance(answer, WireAccept):
            self._leg = StreamLeg(
                stream, self._emit, sessions.count, sessions.manners, self._credit, leftover=opening.rest()
            )
            opened = Opened(SESSION_WINDOW)
            self._emit(encode(opened), opened, b"")
            self._leg.start()
        elif isinstance(answer, WireRefusal):
            refusal = ApplicationFailure(answer.kind, answer.message)
            self._emit(encode(refusal), refusal, data)
        elif isinstance(answer, WireFailure):
            failure = Failure.of(said_by_peer(answer))
            self._emit(encode(failure), failure, b"")
        else:
            sessions.shed(f"a session was answered with {type(answer).__name__}")


class Arrival:
    """A session that a peer opens here; its request has been read and checked."""

    def __init__(self, sessions: PeerSessions, stream: Halves, request: WireOpen, payload: bytes) -> None:
        self._sessions = sessions
        self._stream = stream
        self.request = request
        self.payload = payload
        self._emit: Emit = lambda header, message, payload: None
        self._leg: StreamLeg | None = None
        self._answered = False
        self._loop = asyncio.get_running_loop()
        self._watcher: asyncio.Task[None] | None = None
        self._watch_soon = self._loop.call_later(_LOOK_FOR_END, self._watch)

    @property
    def way(self) -> Way:
        """How the peer is reached."""
        return self._sessions.way

    def speak_to(self, emit: Emit) -> None:
        """Where its side of the session is told."""
        self._emit = emit

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        if self._leg is not None:
            self._leg.take(header, message, payload)
        elif isinstance(message, Opened):
            self._answer()
            self._leg = StreamLeg(
                self._stream, self._emit, self._sessions.count, self._sessions.manners, message.credit, preamble=_ACCEPT
            )
            self._leg.start()
        elif isinstance(message, ApplicationFailure):
            self._refuse(WireRefusal(0, message.kind, message.message), payload)
        elif isinstance(message, Failure):
            self._refuse(WireFailure(0, message.code, message.fields), b"")

    def close(self) -> None:
        self._sessions.end(self)
        if self._leg is not None:
            self._leg.close()
        elif not self._answered:
            self._answer()
            give_up(self._stream, RESET_LOST)

    def lost(self) -> None:
        """The connection has ended."""
        message: Message = Cancel() if self._leg is None else Failure.of(ConnectionLost(what="the peer's daemon"))
        self._emit(encode(message), message, b"")

    def _refuse(self, answer: WireRefusal | WireFailure, payload: bytes) -> None:
        if not self._answered:
            self._answer()
            refuse(self._stream, answer, payload)

    def _answer(self) -> None:
        """There is an answer: whether the peer still waits for it is of no interest any more."""
        self._answered = True
        self._watch_soon.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        self._watcher = self._loop.create_task(self._watch_for_end())

    async def _watch_for_end(self) -> None:
        """A peer that takes its request back ends both directions of the stream; nobody reads it at the moment."""
        try:
            await self._stream.send.stopped()
        except IrohError as error:
            log.debug("a session that waits for its answer: %s", error.message())
            return  # the connection hears of it too
        self._emit(encode(Cancel()), Cancel(), b"")


def refuse(stream: Halves, answer: WireRefusal | WireFailure, payload: bytes = b"") -> None:
    """Answer a session's request with no."""
    try:
        data = frame(answer, payload)
    except BadMessage as unfit:  # what the handler said no with is too long
        data = frame(WireFailure(0, unfit.code, unfit.fields()))

    async def run() -> None:
        await stream.send.write_all(data)
        await stream.send.finish()
        await stream.recv.stop(RESET_FAILED)

    _see_to(run())


def give_up(stream: Halves, code: int) -> None:
    """End both directions of a stream that is no session."""

    async def run() -> None:
        await stream.send.reset(code)
        await stream.recv.stop(code)

    _see_to(run())


_last_steps: Final[set[asyncio.Task[None]]] = set()


def _see_to(steps: Coroutine[Any, Any, None]) -> None:
    """Do it, whoever has gone meanwhile."""

    async def run() -> None:
        try:
            await steps
        except IrohError as error:
            log.debug("the end of a session: %s", error.message())

    task = asyncio.get_running_loop().create_task(run())
    _last_steps.add(task)
    task.add_done_callback(_last_steps.discard)


def said_by_peer(message: WireFailure) -> P2PError:
    """The error that the other side names. What only this side can know, it cannot say."""
    error = error_from(message.code, message.fields)
    if isinstance(error, LocalError):
        return HandlerFailed(peer="the peer", protocol="the protocol", reason=f"its daemon says {error.code}")
    return error
