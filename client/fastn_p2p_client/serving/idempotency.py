"""Idempotency of retried calls: each call with a ``call_id`` is executed once, however often it is delivered.

A caller that retries sends the same random call id. While the first delivery is being executed, a further one waits
for the same outcome. Afterwards the outcome is stored until the call's deadline, because the caller stops retrying
then. When the process that executes the call ends, its outcomes are lost; ``claims`` has those that must not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..ipc.messages import DeliverCall

if TYPE_CHECKING:
    from ..claims.call_claims import Outcome

MAX_REMEMBERED: Final = 16_384
"""Outcomes that are stored at most."""
MAX_REMEMBERED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all stored outcomes at most."""
_COST: Final = 512
"""Bytes that a stored outcome takes besides its header and payload."""


class IdempotencyCache:
    """Calls with a ``call_id`` that run or have run, by a key that is the same for every delivery of a call.

    An outcome is stored until the call's deadline. Beyond ``MAX_REMEMBERED`` outcomes or ``MAX_REMEMBERED_BYTES`` the
    oldest are removed.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiters: dict[bytes, list[bytes]] = {}
        """Correlation ids that wait for the outcome, by the key of a call that runs."""
        self._keys: dict[bytes, bytes] = {}
        """Keys of these calls by correlation id."""
        self._outcomes: dict[bytes, tuple[Outcome, float]] = {}
        """Outcomes and the time until which they are stored, oldest first."""
        self._bytes = 0

    def __contains__(self, key: bytes) -> bool:
        """Return whether the call runs."""
        return key in self._waiters

    @property
    def has_outcomes(self) -> bool:
        """True if a call runs, or the outcome of one is stored before its deadline."""
        now = self._clock()
        return bool(self._waiters) or any(until >= now for _, until in self._outcomes.values())

    @staticmethod
    def key_of(message: DeliverCall) -> bytes:
        """Return the call's key. It is longer than any correlation id, so the two cannot be confused."""
        names = f"{message.identity}/{message.protocol}/{message.instance}/{message.command}".encode()
        return b"".join((message.peer, len(message.call_id).to_bytes(1, "big"), message.call_id, names))

    def outcome(self, key: bytes) -> Outcome | None:
        """Return the stored outcome of a call, or None."""
        found = self._outcomes.get(key)
        return None if found is None or found[1] < self._clock() else found[0]

    def start(self, key: bytes) -> None:
        """Note that the call runs from now on."""
        self._waiters[key] = []

    def add_waiter(self, key: bytes, correlation: bytes) -> None:
        """Note that the outcome is to be sent under this correlation id too."""
        if correlation not in self._keys:
            self._keys[correlation] = key
            self._waiters[key].append(correlation)

    def remove_waiter(self, correlation: bytes) -> bytes | None:
        """Note that no caller waits under this correlation id any more.

        Returns:
            The call's key if it has no waiter left, else None.
        """
        key = self._keys.pop(correlation, None)
        if key is None:
            return None
        self._waiters[key].remove(correlation)
        return key if not self._waiters[key] else None

    def remove_all_waiters(self) -> None:
        """Forget all correlation ids: the next network process does not know them. The calls go on."""
        self._keys.clear()
        for correlations in self._waiters.values():
            correlations.clear()

    def finish(self, key: bytes) -> list[bytes]:
        """Note that the call has ended, and return the correlation ids that wait for its outcome."""
        correlations = self._waiters.pop(key)
        for correlation in correlations:
            del self._keys[correlation]
        return correlations

    def store(self, key: bytes, outcome: Outcome, until: float) -> None:
        """Store the outcome of a call.

        Args:
            key: the call's key.
            outcome: header and payload of the answer.
            until: the call's deadline, on the cache's clock.
        """
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
