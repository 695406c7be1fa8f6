"""The sessions over one connection to another daemon: how many there are, and how they begin."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError
from fastn_p2p_client.limits import MAX_INITIAL, MAX_NAME, MAX_SESSIONS_PER_PEER, RESET_LOST

from .manners import Manners
from .peer_streams import Approach, Arrival, give_up, read_frame, refuse
from .stream_leg import Halves
from .way import Way
from .wire import Opening, WireFailure, WireIntroduce, WireOpen, frame

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection

    from .connection import PeerConnection

__all__ = ["PeerSessions"]

log = logging.getLogger(__name__)

_ENDING: Final = MAX_SESSIONS_PER_PEER // 8
"""Sessions of a peer, beside those that it may have, that may still be ending here when for the peer they have."""
_SPARE_AFTER: Final = 0.001
"""Seconds after which a stream that was taken is replaced: the session that has it goes first."""
_OPENING_TIMEOUT: Final = 10.0
"""Seconds within which a stream must say what it is for."""


class PeerSessions:
    """What ``Approach`` and ``Arrival`` need of their connection, and no more."""

    def __init__(self, connection: PeerConnection, raw: Connection) -> None:
        self._connection = connection
        self._raw = raw
        self._legs: set[Approach | Arrival] = set()
        self._mine = self._theirs = 0
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._spare: Halves | None = None
        """For the next session that we open."""
        self._laying: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def manners(self) -> Manners:
        return self._connection.manners

    @property
    def name(self) -> str:
        return self._connection.name

    @property
    def way(self) -> Way:
        """How the other side is reached."""
        return self._connection.way()

    # ── those that we open ───────────────────────────────────────────────────────────────────────

    def begin(self, leg: Approach) -> None:
        """We open one more.

        Raises:
            Overloaded: there are too many.
            ConnectionLost: the connection has ended.
        """
        if self._connection.closed:
            raise ConnectionLost(what="the connection to the peer")
        if self._mine >= MAX_SESSIONS_PER_PEER:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        self._mine += 1
        self._legs.add(leg)
        self._connection.expect()

    def end(self, leg: Approach | Arrival) -> None:
        """It is over."""
        if leg in self._legs:
            self._legs.discard(leg)
            if isinstance(leg, Approach):
                self._mine -= 1
            else:
                self._theirs -= 1

    def opening(self, request: WireOpen, payload: bytes) -> bytes:
        """The frames that a session begins with."""
        introduction = self._connection.introduction_for(request.source)
        first = b"" if introduction is None else frame(WireIntroduce(introduction))
        return first + frame(request, payload)

    async def open_stream(self) -> Halves:
        """A stream that nothing has been said on. Raises IrohError when the connection has ended."""
        self._loop.call_later(_SPARE_AFTER, self._lay_aside)
        spare, self._spare = self._spare, None
        return spare or Halves.of(await self._raw.open_bi())

    def _lay_aside(self) -> None:
        """Have the next stream at hand. The peer does not see it before something is said on it."""
        if self._spare is None and self._laying is None and not self._connection.closed:
            self._laying = self._loop.create_task(self._open_spare())

    async def _open_spare(self) -> None:
        try:
            self._spare = Halves.of(await self._raw.open_bi())
        except IrohError as error:
            log.debug("no stream for the next session with %s: %s", self.name, error.message())
        finally:
            self._laying = None

    # ── those that the peer opens ────────────────────────────────────────────────────────────────

    async def accept(self) -> None:
        """Take every stream that the peer opens. Raises IrohError when the connection has ended."""
        while True:
            task = self._loop.create_task(self._arrive(Halves.of(await self._raw.accept_bi())))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
            await asyncio.sleep(0)  # it goes before the look for the next one

    async def _arrive(self, stream: Halves) -> None:
        opening = Opening(MAX_INITIAL)
        try:
            async with asyncio.timeout(_OPENING_TIMEOUT):
                request, payload = await self._read_request(stream, opening)
        except TimeoutError:
            refuse(stream, _failure(BadMessage(reason="the stream did not say what it is for")))
        except IrohError as error:
            log.debug("a stream of %s ended at once: %s", self.name, error.message())
        except ConnectionLost as error:
            log.debug("a stream of %s: %s", self.name, error)
            give_up(stream, RESET_LOST)
        except P2PError as error:
            self.shed(f"a bad session: {error.code}")
        else:
            self.count(0, opening.taken)
            try:
                self._check(request)
            except P2PError as error:
                refuse(stream, _failure(error))
                return
            arrival = Arrival(self, stream, request, payload)
            self._theirs += 1
            self._legs.add(arrival)
            self._connection.expect()
            self._connection.arrived(arrival)

    async def _read_request(self, stream: Halves, opening: Opening) -> tuple[WireOpen, bytes]:
        while True:
            message, payload = await read_frame(stream, opening)
            if isinstance(message, WireIntroduce):
                self._connection.on_introduce(message)
            elif isinstance(message, WireOpen):
                if opening.rest():
                    raise BadMessage(reason="bytes before the session was accepted")
                return message, payload
            else:
                raise BadMessage(reason=f"a stream that begins with {type(message).__name__}")

    def _check(self, request: WireOpen) -> None:
        if self._theirs >= MAX_SESSIONS_PER_PEER + _ENDING:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        self._connection.check_source(request.source)
        if len(request.protocol) > MAX_NAME or len(request.instance) > MAX_NAME:
            raise BadMessage(reason=f"a name of more than {MAX_NAME} characters")

    # ── all ──────────────────────────────────────────────────────────────────────────────────────

    def count(self, sent: int, received: int) -> None:
        """So many bytes have passed."""
        self._connection.count(sent, received)

    def shed(self, reason: str) -> None:
        """The peer does not keep to the protocol: end the connection."""
        self._connection.shed(reason)

    def lost(self) -> None:
        """The connection has ended."""
        for task in self._arriving:
            task.cancel()
        if self._laying is not None:
            self._laying.cancel()
        self._spare = None
        for leg in list(self._legs):
            leg.lost()


def _failure(error: P2PError) -> WireFailure:
    return WireFailure(0, error.code, error.fields())
