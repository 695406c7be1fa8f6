"""Registry of the connected clients, and the datagrams between them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .client_connection import ClientConnection
from .frames import BATCH_TO_RELAY, DATAGRAM_TO_RELAY, KEY_BYTES, SHORTEST_DATAGRAM, STATUS_HEALTHY, STATUS_SAME_KEY
from .metrics import Metrics
from .relay_limits import MAX_SAME_KEY, RelayLimits

_REST = 1 + KEY_BYTES


class ClientRegistry:
    """Clients by key. The newest connection of a key is the active one: it receives the datagrams.

    When it ends, the newest of the others becomes active again. A program that was restarted connects before the relay
    has noticed the end of its old connection, so the newest is the one that lives.
    """

    def __init__(self, limits: RelayLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._active: dict[bytes, ClientConnection] = {}
        self._older: dict[bytes, list[ClientConnection]] = {}

    def __len__(self) -> int:
        return len(self._active) + sum(map(len, self._older.values()))

    def __iter__(self) -> Iterator[ClientConnection]:
        yield from self._active.values()
        for older in self._older.values():
            yield from older

    def find(self, key: bytes) -> ClientConnection | None:
        """Return the active connection of a key."""
        return self._active.get(key)

    def add(self, client: ClientConnection) -> None:
        before = self._active.get(client.key)
        self._active[client.key] = client
        if before is not None:
            before.send_status(STATUS_SAME_KEY)
            older = self._older.setdefault(client.key, [])
            older.append(before)
            if len(older) >= MAX_SAME_KEY:
                older[0].abort()  # its handler removes it

    def remove(self, client: ClientConnection) -> None:
        """Remove a client whose connection has ended. Tell the clients that it has sent to."""
        self._metrics.clients_ended += 1
        older = self._older.get(client.key, [])
        if self._active.get(client.key) is not client:
            older.remove(client)
        elif older:
            self._active[client.key] = older.pop()
            self._active[client.key].send_status(STATUS_HEALTHY)
        else:
            del self._active[client.key]
            for key in client.sent_to:
                receiver = self._active.get(key)
                if receiver is not None:
                    receiver.send_gone(client.key)
        if not older:
            self._older.pop(client.key, None)

    def forward(self, source: ClientConnection, frame: bytes) -> bool:
        """Pass on a frame with datagrams. Return False if it is no such frame."""
        size = len(frame)
        if size < SHORTEST_DATAGRAM:
            return False
        kind = frame[0]
        if kind == DATAGRAM_TO_RELAY:
            head = source.datagram_head
        elif kind == BATCH_TO_RELAY and size >= SHORTEST_DATAGRAM + 2:
            head = source.batch_head
        else:
            return False
        key = frame[1:_REST]
        receiver = self._active.get(key)
        metrics = self._metrics
        if receiver is None:
            metrics.datagrams_dropped_unknown += 1
        elif receiver.send_datagram(head, memoryview(frame)[_REST:]):
            metrics.datagrams += 1
            metrics.datagram_bytes += size
            if key not in source.sent_to:
                source.note_receiver(key)
        else:
            metrics.datagrams_dropped_full += 1
        return True

    def sweep(self, now: float) -> None:
        """Ping silent clients, and close those that do not answer. Keep the bytes that wait below the limit of all."""
        total = 0
        for client in list(self):
            if not client.check_alive(now):
                self._metrics.clients_timed_out += 1
                client.abort()
            else:
                total += client.pending
        if total > self._limits.pending_of_all:
            self._close_slowest(total - self._limits.pending_of_all)

    def _close_slowest(self, surplus: int) -> None:
        """Close the clients that the most bytes wait for, until ``surplus`` bytes are freed."""
        slowest = heapq.nlargest(1 + surplus // max(1, self._limits.pending // 2), self, key=_pending)
        for client in slowest:
            if surplus <= 0:
                break
            surplus -= client.pending
            self._metrics.clients_too_slow += 1
            client.abort()


def _pending(client: ClientConnection) -> int:
    return client.pending
