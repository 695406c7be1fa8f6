"""A conversation while somebody looks at it: its open terminals here, and those of the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from fastn_p2p_client.chat.messages import (
    Event,
    Presence,
    PresenceState,
)

from .presence import PresenceSender

_MAX_EVENTS: Final = 2_000
"""Events that wait for a terminal that does not read."""


class ConversationId(NamedTuple):
    """Which conversation."""

    peer: str
    conversation: str


class TerminalQueue:
    """What waits for one program that has joined."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)
        self.overrun = False
        """It has missed something: it must join again."""

    def publish(self, event: Event) -> None:
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self.overrun = True

    async def next(self) -> Event:
        return await self._events.get()


class OpenConversation:
    """One conversation. Exists while there is a terminal at either side.

    Attributes:
        theirs: sessions by which the peer says that it is here.
    """

    def __init__(self) -> None:
        self.terminals: set[TerminalQueue] = set()
        self.theirs = 0
        self.attendance: PresenceSender | None = None

    @property
    def presence(self) -> PresenceState:
        return "here" if self.theirs else "away"

    def publish(self, event: Event) -> None:
        for terminal in self.terminals:
            terminal.publish(event)


class OpenConversations:
    """All of a binding's.

    Args:
        attend: tells a peer that somebody is here, until it is closed.
    """

    def __init__(self, attend: Callable[[ConversationId], PresenceSender]) -> None:
        self._attend = attend
        self._rooms: dict[ConversationId, OpenConversation] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def publish(self, place: ConversationId, event: Event) -> None:
        """To whoever looks at the conversation here."""
        room = self._rooms.get(place)
        if room is not None:
            room.publish(event)

    def tell_all(self, peer: str, event: Event) -> None:
        """In all conversations with the peer."""
        for place, room in self._rooms.items():
            if place.peer == peer:
                room.publish(event)

    def enter(self, place: ConversationId) -> tuple[OpenConversation, TerminalQueue]:
        """A terminal of the owner's."""
        room = self._rooms.setdefault(place, OpenConversation())
        terminal = TerminalQueue()
        room.terminals.add(terminal)
        if room.attendance is None:
            room.attendance = self._attend(place)
        return room, terminal

    async def leave(self, place: ConversationId, terminal: TerminalQueue) -> None:
        room = self._rooms[place]
        room.terminals.discard(terminal)
        if not room.terminals and room.attendance is not None:
            attendance, room.attendance = room.attendance, None
            self._forget(place, room)
            await attendance.close()

    def peer_came(self, place: ConversationId) -> None:
        """A terminal of the peer's."""
        room = self._rooms.setdefault(place, OpenConversation())
        room.theirs += 1
        if room.theirs == 1:
            room.publish(Presence("here"))

    def peer_left(self, place: ConversationId) -> None:
        room = self._rooms[place]
        room.theirs -= 1
        if not room.theirs:
            room.publish(Presence("away"))
            self._forget(place, room)

    async def close(self) -> None:
        for room in self._rooms.values():
            attendance, room.attendance = room.attendance, None
            if attendance is not None:
                await attendance.close()

    def _forget(self, place: ConversationId, room: OpenConversation) -> None:
        if not room.terminals and not room.theirs and self._rooms.get(place) is room:
            del self._rooms[place]
