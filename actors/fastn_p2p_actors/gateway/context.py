"""What every command works with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_client.home import Home

from ..runtime.actor import ActorContext
from ..runtime.grants import make_grant
from ..runtime.specs import GatewaySettings
from ..storage.identity_store import IdentityStore
from . import actor_clients
from .actor_clients import (
    IdentityClient,
    SupervisorClient,
)
from .binding_watchers import BindingWatchers

__all__ = ["GatewayContext", "WithPayload"]


class WithPayload(NamedTuple):
    """An answer that is more than a header."""

    reply: msgspec.Struct
    payload: bytes


ASIDE_AT_ONCE: Final = 4


class GatewayContext:
    """The store and the colleagues, and the order in which one identity's affairs are settled.

    Attributes:
        clients: how many programs are connected.
        worker_slots: taken by each process that runs protocol code for a moment.
        noticeboard: for programs that watch what they are to serve.
    """

    def __init__(self, stage: ActorContext) -> None:
        self.settings = stage.load_settings(GatewaySettings)
        self.home: Home = stage.home
        self.store = IdentityStore(stage.home)
        self.supervisor = SupervisorClient(stage)
        self.vault = actor_clients.vault(stage.home, self.settings)
        self.network = actor_clients.network(stage.home, self.settings)
        self.noticeboard = BindingWatchers()
        self.clients: Callable[[], int] = lambda: 0
        self.worker_slots = asyncio.Semaphore(ASIDE_AT_ONCE)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def identity_lock(self, identity: str) -> AsyncIterator[None]:
        """Nobody else changes anything about the identity inside."""
        self._users[identity] += 1
        try:
            async with self._locks[identity]:
                yield
        finally:
            self._users[identity] -= 1
            if not self._users[identity]:
                del self._users[identity], self._locks[identity]

    def identity_client(self, identity: str) -> IdentityClient:
        """A connection to the identity's process: ``async with``."""
        return IdentityClient(self.home, identity, make_grant(self.settings.grant_key, identity))

    def close(self) -> None:
        self.vault.close()
        self.network.close()
