"""Interface of a store of claims."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, NamedTuple

from ..limits import MAX_CALL_TIMEOUT

CLAIM_SECONDS: Final = 2 * MAX_CALL_TIMEOUT
"""Seconds that a store keeps an entry which does not change."""
REQUEST_SECONDS: Final = 2.0
"""Seconds for one request to a store."""


class ClaimEntry(NamedTuple):
    """Value of a key, and the number of its last change, which is not 0."""

    value: bytes
    revision: int


class ClaimStore(ABC):
    """Values by key, for all daemons of an identity. Create and use it inside one event loop.

    Each method but ``close`` raises an exception while the store cannot be used; ``reason_of`` has it in words.
    It connects at its first use, and again when needed.
    """

    label: str
    """The store, in words without secrets."""

    @abstractmethod
    async def create(self, key: str, value: bytes) -> bool:
        """Set the value of a key that has none. Return False if it has one."""

    @abstractmethod
    async def get(self, key: str) -> ClaimEntry | None:
        """Return the value of a key, if it has one."""

    @abstractmethod
    async def replace(self, key: str, value: bytes, revision: int) -> bool:
        """Set the value of a key whose last change has this number. Return False if it was changed since."""

    @abstractmethod
    async def put(self, key: str, value: bytes) -> None:
        """Set the value of a key."""

    @abstractmethod
    async def remove_expired(self) -> None:
        """Remove what was not changed for ``CLAIM_SECONDS``, unless the server does so by itself."""

    @abstractmethod
    def reason_of(self, error: Exception) -> str:
        """Return in words why the store cannot be used, and what to do."""

    @abstractmethod
    async def close(self) -> None:
        """End the connections."""
