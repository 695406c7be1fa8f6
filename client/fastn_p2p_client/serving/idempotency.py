"""Calls that may be sent again: what a process that serves remembers, so that each is executed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..ipc.messages import DeliverCall
from .binding import Outcome

__all__ = ["IdempotencyCache"]

MAX_REMEMBERED: Final = 16_384
MAX_REMEMBERED_BYTES: Final = 64 * 1024 * 1024
_COST: Final = 512
"""Bytes that remembering an outcome takes beside its own."""


class IdempotencyCache:
    """The calls with a ``call_id``, by a key that is theirs whoever delivers them and under whatever correlation.

    An outcome is remembered until the call's deadline, after which nobody asks for it; of more than
    ``MAX_REMEMBERED``, or ``MAX_REMEMBERED_BYTES``, the oldest are forgotten.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[bytes, list[bytes]] = {}
        """Of those that are being executed, the correlations under which they are waited for."""
        self._keys: dict[bytes, bytes] = {}
        """The keys of those correlations."""
        self._outcomes: dict[bytes, tuple[Outcome, float]] = {}
        self._bytes = 0

    def __contains__(self, key: bytes) -> bool:
        """Whether it is being executed."""
        return key in self._waiting

    @staticmethod
    def key_of(message: DeliverCall) -> bytes:
        """Longer than any correlation, and so none."""
        names = f"{message.identity}/{message.protocol}/{message.instance}/{message.command}".encode()
        return b"".join((message.peer, len(message.call_id).to_bytes(1, "big"), message.call_id, names))

    def outcome(self, key: bytes) -> Outcome | None:
        """What has come of it, if that is remembered."""
        found = self._outcomes.get(key)
        return None if found is None or found[1] < self._clock() else found[0]

    def start(self, key: bytes) -> None:
        """It is being executed from now on."""
        self._waiting[key] = []

    def add_waiter(self, key: bytes, correlation: bytes) -> None:
        """Its outcome is wanted under this correlation, too."""
        if correlation not in self._keys:
            self._keys[correlation] = key
            self._waiting[key].append(correlation)

    def remove_waiter(self, correlation: bytes) -> bytes | None:
        """Nobody waits under this correlation any more; the call's key when nobody does under any other."""
        key = self._keys.pop(correlation, None)
        if key is None:
            return None
        self._waiting[key].remove(correlation)
        return key if not self._waiting[key] else None

    def leave_all(self) -> None:
        """Whoever delivered them is gone, and correlations mean nothing to the next one. They go on."""
        self._keys.clear()
        for correlations in self._waiting.values():
            correlations.clear()

    def finish(self, key: bytes) -> list[bytes]:
        """It is not being executed any more; the correlations under which it is waited for."""
        correlations = self._waiting.pop(key)
        for correlation in correlations:
            del self._keys[correlation]
        return correlations

    def store(self, key: bytes, outcome: Outcome, until: float) -> None:
        """This has come of it; it is asked for until then at the latest."""
        self._outcomes[key] = outcome, until
        self._bytes += _size(outcome)
        now = self._clock()
        while self._outcomes:
            oldest = next(iter(self._outcomes))
            known, expires = self._outcomes[oldest]
            full = len(self._outcomes) > MAX_REMEMBERED or self._bytes > MAX_REMEMBERED_BYTES
            if expires >= now and not full:
                return
            del self._outcomes[oldest]
            self._bytes -= _size(known)


def _size(outcome: Outcome) -> int:
    return _COST + sum(map(len, outcome))
