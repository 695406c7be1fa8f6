"""The sessions with channels that one binding serves, and the sessions to which channels move."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ..errors import BadRequest
from ..session.session import Session
from .multiplexer import MoveChannel, Multiplexer, SessionChannel, StartChannels

MAX_CHANNELS_PER_PEER: Final = 256
"""Channels of one peer in all its sessions."""
ChannelInitial: TypeAlias = StartChannels | MoveChannel
"""Initial data of a session that is no single connection."""


class ChannelServer:
    """Serves sessions with channels.

    Args:
        accept: opens a channel. It is told whether the peer has too many.
        move: has a channel go on in a session; returns when the channel is over.
    """

    def __init__(
        self,
        accept: Callable[[Multiplexer, int, bool], SessionChannel],
        move: Callable[[SessionChannel, Session], Awaitable[None]],
    ) -> None:
        self._accept = accept
        self._move = move
        self._multiplexers: dict[bytes, Multiplexer] = {}

    async def serve(self, session: Session, initial: ChannelInitial) -> None:
        """Serve one session.

        Raises:
            BadRequest: the channel that should move there does not exist.
            P2PError: the session is lost.
        """
        if isinstance(initial, MoveChannel):
            found = self._multiplexers.get(initial.token)
            channel = None if found is None else found.channels.get(initial.channel)
            if found is None or channel is None or found.session.peer.key != session.peer.key:
                raise BadRequest(protocol=session.protocol, reason="the channel is over")
            session.accept()
            await self._move(channel, session)
            return
        session.accept()
        multiplexer = Multiplexer(session, self._open)
        self._multiplexers[multiplexer.token] = multiplexer
        try:
            await multiplexer.run()
        finally:
            del self._multiplexers[multiplexer.token]

    def _open(self, multiplexer: Multiplexer, number: int) -> SessionChannel:
        peer = multiplexer.session.peer.key
        count = sum(len(each.channels) for each in self._multiplexers.values() if each.session.peer.key == peer)
        return self._accept(multiplexer, number, count >= MAX_CHANNELS_PER_PEER)
