"""Pausing of sessions: ask the peer to write nothing on those that fill faster than they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ..wire import messages as wire
from .remote_leg import RemoteLeg

_FEW: Final = 8
"""Sessions with streams that are not paused early: QUIC holds at most 10 MB for all of them together."""
_LOOK_AGAIN: Final = 0.002
"""Seconds until a paused session whose bytes are being read is checked again."""
_MAX_PAUSE: Final = 1.0
"""Seconds after which a paused session is resumed, once everything that has arrived is read."""


class SessionPausing:
    """Sessions of one connection that are paused because they are not read.

    Problem: QUIC holds up to 1.25 MB of unread bytes for each stream, and its binding cannot change that. Many unread
    sessions would fill the memory that their peer may hold.

    Idea: with more than eight sessions, or much that is unread, ask the peer (``wire.Pause``) to write nothing on a
    session whose reader has used half its window without granting credit. The bytes on their way then still fit into
    the other half. The session is resumed when its reader has room again.

    Cost: one message per pause and resume, and one comparison per chunk.

    Not covered: a peer that ignores the pause. ``PeerMemory`` closes its connection when it holds too much.

    Args:
        send: sends a message to the peer daemon.

    Attributes:
        peer_pauses: True if the peer daemon understands ``wire.Pause``.
    """

    def __init__(self, send: Callable[[wire.WireMessage], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._by_number: dict[int, RemoteLeg] = {}
        """Legs of the sessions that have a stream, by the number of the stream."""
        self._looked_at: set[int] = set()
        """Streams that are looked at again soon."""
        self.peer_pauses = False
        self._much_unread = False
        self._is_pausing = False
        """True if sessions that are not read are paused."""

    def add(self, number: int, leg: RemoteLeg) -> None:
        """Add a session that has got its stream."""
        self._by_number[number] = leg
        self._update()
        if self._is_pausing:
            self._pause_or_resume(leg)

    def remove(self, number: int) -> None:
        """Remove a session that has ended."""
        self._by_number.pop(number, None)
        self._update()

    def clear(self) -> None:
        """Remove all sessions: the connection has ended."""
        self._by_number.clear()

    def pause_slow(self) -> None:
        """Pause sessions that are not read, because the peer has sent much that is unread."""
        self._much_unread = True
        self._update()

    def resume_all(self) -> None:
        """Resume all sessions, unless there are many of them."""
        if self._much_unread:
            self._much_unread = False
            self._update()

    def _update(self) -> None:
        is_pausing = self.peer_pauses and (self._much_unread or len(self._by_number) > _FEW)
        if is_pausing is not self._is_pausing:
            self._is_pausing = is_pausing
            for leg in self._by_number.values():
                self._pause_or_resume(leg)

    def _pause_or_resume(self, leg: RemoteLeg) -> None:
        number = leg.number
        if number is None:
            return
        leg.on_flow = self._pause_or_resume if self._is_pausing else None
        if leg.peer_paused:
            if not self._is_pausing or leg.is_fast:
                self._resume(number, leg)
        elif self._is_pausing and (leg.is_slow or leg.has_backlog):
            leg.peer_paused = True
            leg.paused_at = self._loop.time()
            self._send(wire.Pause(number))
        if leg.peer_paused and not leg.is_slow:  # its bytes are being read, and nothing is reported after the last
            self._look_again(number)

    def _look_again(self, number: int) -> None:
        if number not in self._looked_at:
            self._looked_at.add(number)
            self._loop.call_later(_LOOK_AGAIN, self._look, number)

    def _look(self, number: int) -> None:
        self._looked_at.discard(number)
        leg = self._by_number.get(number)
        if leg is not None:
            self._pause_or_resume(leg)

    def _resume(self, number: int, leg: RemoteLeg) -> None:
        leg.peer_paused = False
        self._send(wire.Resume(number))

    def resume_drained(self) -> None:
        """Resume sessions that were paused long ago and have nothing left to read.

        A program that gives little credit at a time never looks fast.
        """
        since = self._loop.time() - _MAX_PAUSE
        for number, leg in self._by_number.items():
            if leg.peer_paused and leg.paused_at < since and not leg.has_backlog:
                self._resume(number, leg)

    def on_pause(self, message: wire.Pause | wire.Resume) -> None:
        """Stop or continue to write on a session, as the peer has requested."""
        leg = self._by_number.get(message.stream)
        if leg is None:
            return  # it has ended meanwhile
        if isinstance(message, wire.Pause):
            leg.pause()
        else:
            leg.resume()
