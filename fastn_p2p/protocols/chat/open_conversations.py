"""Open conversations: those that a terminal shows, here or at the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from fastn_p2p_client.chat.messages import Event, Presence, PresenceState

from .presence import PresenceSender

_MAX_EVENTS: Final = 2_000
"""Events that wait for a terminal that does not read."""


class ConversationId(NamedTuple):
    """Key of a conversation."""

    peer: str
    conversation: str


class TerminalQueue:
    """Events that wait for one program that follows a conversation."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)
        self.overrun = False
        """True once an event was dropped. The program must follow the conversation again."""

    def publish(self, event: Event) -> None:
        """Add an event, or drop it if the queue is full."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self.overrun = True

    async def next(self) -> Event:
        """Wait for the next event and return it."""
        return await self._events.get()


class OpenConversation:
    """Conversation that a terminal shows, here or at the peer.

    Attributes:
        terminals: queues of the owner's terminals.
        peer_sessions: open presence sessions of the peer.
        presence_sender: open while there are terminals here.
    """

    def __init__(self) -> None:
        self.terminals: set[TerminalQueue] = set()
        self.peer_sessions = 0
        self.presence_sender: PresenceSender | None = None

    @property
    def presence(self) -> PresenceState:
        """``here`` if a terminal of the peer shows the conversation, otherwise ``away``."""
        return "here" if self.peer_sessions else "away"

    def publish(self, event: Event) -> None:
        """Send an event to the owner's terminals."""
        for terminal in self.terminals:
            terminal.publish(event)


class OpenConversations:
    """Registry of a binding's open conversations.

    Args:
        send_presence: opens the presence session of a conversation.
    """

    def __init__(self, send_presence: Callable[[ConversationId], PresenceSender]) -> None:
        self._send_presence = send_presence
        self._open: dict[ConversationId, OpenConversation] = {}

    def __len__(self) -> int:
        return len(self._open)

    def publish(self, id: ConversationId, event: Event) -> None:
        """Send an event to the owner's terminals that show the conversation."""
        found = self._open.get(id)
        if found is not None:
            found.publish(event)

    def publish_to_all(self, peer: str, event: Event) -> None:
        """Send an event to the owner's terminals that show any conversation with the peer."""
        for id, found in self._open.items():
            if id.peer == peer:
                found.publish(event)

    def add_terminal(self, id: ConversationId) -> tuple[OpenConversation, TerminalQueue]:
        """Add a terminal of the owner."""
        found = self._open.setdefault(id, OpenConversation())
        terminal = TerminalQueue()
        found.terminals.add(terminal)
        if found.presence_sender is None:
            found.presence_sender = self._send_presence(id)
        return found, terminal

    async def remove_terminal(self, id: ConversationId, terminal: TerminalQueue) -> None:
        """Remove a terminal of the owner. The last one ends the presence session."""
        found = self._open[id]
        found.terminals.discard(terminal)
        if not found.terminals and found.presence_sender is not None:
            sender, found.presence_sender = found.presence_sender, None
            self._remove_unused(id, found)
            await sender.close()

    def peer_joined(self, id: ConversationId) -> None:
        """Count a presence session that the peer has opened."""
        found = self._open.setdefault(id, OpenConversation())
        found.peer_sessions += 1
        if found.peer_sessions == 1:
            found.publish(Presence("here"))

    def peer_left(self, id: ConversationId) -> None:
        """Count the end of a presence session of the peer."""
        found = self._open[id]
        found.peer_sessions -= 1
        if not found.peer_sessions:
            found.publish(Presence("away"))
            self._remove_unused(id, found)

    async def close(self) -> None:
        """End all presence sessions."""
        for found in self._open.values():
            sender, found.presence_sender = found.presence_sender, None
            if sender is not None:
                await sender.close()

    def _remove_unused(self, id: ConversationId, found: OpenConversation) -> None:
        if not found.terminals and not found.peer_sessions and self._open.get(id) is found:
            del self._open[id]
