"""Context of every gateway command."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import msgspec

from fastn_p2p_client.errors import VaultLocked
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import Ack, PeerInfo, PeerList, WaitingItem

from ..identity.one_shot_worker import WorkerLimits
from ..network.admin_messages import GetPeers, RemoveSleeper
from ..runtime.actor import ActorContext
from ..runtime.grants import make_grant
from ..runtime.specs import GatewaySettings
from ..storage.identity_store import IdentityFile, IdentityStore
from ..storage.permission_store import PermissionStore
from ..storage.worker_token_store import WorkerTokenStore
from ..vault.audit_reporter import AuditReporter
from . import actor_clients
from .actor_clients import IdentityClient, SupervisorClient
from .binding_watchers import BindingWatchers
from .one_shot_workers import OneShotWorkers
from .supervised_workers import SupervisedWorkers


class WithPayload(NamedTuple):
    """Reply with a payload."""

    reply: msgspec.Struct
    payload: bytes


class GatewayContext:
    """Identity store, clients of the other actors, and one lock per identity.

    Attributes:
        settings: settings of the gateway.
        home: the daemon's home directory.
        store: identities and bindings on disk.
        permissions: permissions of bindings on disk.
        supervisor: client of the supervisor.
        vault: client of the vault.
        network: client of the network process.
        network_connected: set at each connection to the network process, and cleared by ``restore_identities``.
        audit: reports commands to the audit log.
        watchers: programs that watch bindings.
        clients: return the number of connected programs.
        restore_lock: held while a backup is restored, or an interrupted restore finished.
        transport_lock: held while the transport key is replaced.
        is_confining: whether the daemon's processes are confined, where the kernel can do that.
        filled_disk: warnings about identities that were taken offline because they filled the disk, by name.
        metrics_problem: reason why metrics are not served, although the settings want it; empty if there is none.
        waiting: what waits for the owner, as the network process has said.
        workers: runs protocol code in one-shot workers.
    """

    def __init__(self, actor: ActorContext) -> None:
        self.settings = actor.load_settings(GatewaySettings)
        self.home: Home = actor.home
        self.store = IdentityStore(actor.home)
        self.permissions = PermissionStore(actor.home)
        self.supervisor = SupervisorClient(actor)
        self.vault = actor_clients.vault(actor.home, self.settings)
        self.network_connected = asyncio.Event()
        self.workers_changed = asyncio.Event()
        self.workers_lock = asyncio.Lock()
        self.worker_tokens = WorkerTokenStore(actor.home)
        self.network = actor_clients.network(actor.home, self.settings, self._on_waiting, self._on_network_connected)
        self.waiting: tuple[WaitingItem, ...] = ()
        self.audit = AuditReporter(lambda event: self.vault.request(event, Ack))
        self.watchers = BindingWatchers()
        self.clients: Callable[[], int] = lambda: 0
        self.restore_lock = asyncio.Lock()
        self.transport_lock = asyncio.Lock()
        self.is_confining = actor.spec.sandbox
        self.metrics_problem = ""
        self.filled_disk: dict[str, str] = {}
        limits = WorkerLimits(self.settings.memory, self.is_confining, str(actor.home.path))
        self.workers = OneShotWorkers(SupervisedWorkers(actor), limits)
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[str, int] = defaultdict(int)

    def _on_network_connected(self) -> None:
        self.network_connected.set()
        self.workers_changed.set()

    def _on_waiting(self, items: tuple[WaitingItem, ...]) -> None:
        self.waiting = items

    @asynccontextmanager
    async def identity_lock(self, identity: str) -> AsyncIterator[None]:
        """Hold the lock of an identity: no other command changes it meanwhile."""
        self._users[identity] += 1
        try:
            async with self._locks[identity]:
                yield
        finally:
            self._users[identity] -= 1
            if not self._users[identity]:
                del self._users[identity], self._locks[identity]

    def identity_client(self, identity: str) -> IdentityClient:
        """Return a client of the identity's process; use it with ``async with``."""
        return IdentityClient(self.home, identity, make_grant(self.settings.grant_key, identity))

    async def stop_process(self, record: IdentityFile) -> None:
        """Stop the process of an identity that is to be offline, also of one that is asleep. Raises DaemonBusy."""
        await self.supervisor.stop(record.name)
        if record.idle:
            with suppress(VaultLocked):  # since the daemon has started: then no identity is online
                await self.network.request(RemoveSleeper(record.name), Ack)

    async def peers_by_name(self) -> dict[str, PeerInfo]:
        """Return the address book, by petname. Raises P2PError."""
        found: dict[str, PeerInfo] = {}
        page = PeerList([], more=True)
        while page.more:
            page = await self.network.request(GetPeers(page.peers[-1].name if page.peers else ""), PeerList)
            found.update((peer.name, peer) for peer in page.peers)
        return found

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` in the background until it ends or the gateway stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.vault.close()
        self.network.close()
