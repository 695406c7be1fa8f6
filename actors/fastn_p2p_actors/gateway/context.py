"""What every command works with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_client.home import Home

from ..runtime.actor import Stage
from ..runtime.specs import (
    GatewaySettings,
    grant_for,
)
from ..storage.identity_store import Store
from . import actor_clients as colleagues
from .actor_clients import (
    IdentityProcess,
    Supervisor,
)
from .binding_watchers import Noticeboard

__all__ = ["Desk", "WithPayload"]


class WithPayload(NamedTuple):
    """An answer that is more than a header."""

    reply: msgspec.Struct
    payload: bytes


ASIDE_AT_ONCE: Final = 4


class Desk:
    """The store and the colleagues, and the order in which one identity's affairs are settled.

    Attributes:
        clients: how many programs are connected.
        turns_aside: taken by each process that runs protocol code for a moment.
        noticeboard: for programs that watch what they are to serve.
    """

    def __init__(self, stage: Stage) -> None:
        self.settings = stage.settings_as(GatewaySettings)
        self.home: Home = stage.home
        self.store = Store(stage.home)
        self.supervisor = Supervisor(stage)
        self.vault = colleagues.vault(stage.home, self.settings)
        self.network = colleagues.network(stage.home, self.settings)
        self.noticeboard = Noticeboard()
        self.clients: Callable[[], int] = lambda: 0
        self.turns_aside = asyncio.Semaphore(ASIDE_AT_ONCE)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def alone_with(self, identity: str) -> AsyncIterator[None]:
        """Nobody else changes anything about the identity inside."""
        self._users[identity] += 1
        try:
            async with self._locks[identity]:
                yield
        finally:
            self._users[identity] -= 1
            if not self._users[identity]:
                del self._users[identity], self._locks[identity]

    def process_of(self, identity: str) -> IdentityProcess:
        """A connection to the identity's process: ``async with``."""
        return IdentityProcess(self.home, identity, grant_for(self.settings.grant_key, identity))

    def close(self) -> None:
        self.vault.close()
        self.network.close()
