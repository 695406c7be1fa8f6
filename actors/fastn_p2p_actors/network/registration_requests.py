"""Registration requests: processes that serve bring identities and bindings online and take them offline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, Forbidden, IdentityOffline
from fastn_p2p_client.ipc.messages import (
    Ack,
    Message,
    RegisterBinding,
    RegisterIdentity,
    ReportWaiting,
    RequestSleep,
    UnregisterBinding,
    UnregisterIdentity,
)
from fastn_p2p_client.keys import id52_of
from fastn_p2p_client.limits import MAX_CALLS_PER_BINDING
from fastn_p2p_client.names import check_name

from ..runtime.control_channel import MAX_REASON
from ..runtime.grants import check_grant, program_subject, verify_grant
from ..runtime.mailbox import Sender
from ..vault.audit_reporter import AuditReporter
from .address_book import AddressBook
from .admin_messages import WorkerBinding
from .connections.pool import ConnectionPool
from .discovery.identity_publisher import IdentityPublisher
from .discovery.online_waits import OnlineWaits
from .serving.access_list import AccessList
from .serving.expected_programs import ExpectedPrograms
from .serving.registration_grace import RegistrationGrace
from .serving.registry import OnlineIdentity, Registry
from .sessions.revocation import SessionRevocation
from .sleepers import Sleepers
from .waiting_items import WaitingItems
from .workers.worker_access import WorkerAccess

RegistrationRequest: TypeAlias = (
    RegisterIdentity | RegisterBinding | UnregisterBinding | UnregisterIdentity | ReportWaiting | RequestSleep
)

_WORKER_BYTES: Final = 7
"""Bytes of a worker's number that take the place of a pid."""
_MAX_ADMITTED: Final = 16_384
"""Pairs of a peer and a binding that are remembered. An older one may be reported again."""


class RegistrationRequests:
    """Answers them. Each needs the grant of what it registers, or has to come from the process that registered it.

    Attributes:
        sleepers: identities that are asleep; set before the first request.
        on_stateful: called with the name of an identity that has a binding which keeps state; set as well.
    """

    sleepers: Sleepers
    on_stateful: Callable[[str], Awaitable[None]]

    def __init__(
        self,
        grant_key: bytes,
        *,
        registry: Registry,
        book: AddressBook,
        publisher: IdentityPublisher,
        grace: RegistrationGrace,
        expected: ExpectedPrograms,
        waits: OnlineWaits,
        pool: ConnectionPool,
        revocation: SessionRevocation,
        audit: AuditReporter,
        waiting: WaitingItems,
        workers: WorkerAccess,
    ) -> None:
        self._audit = audit
        self._admitted: dict[tuple[bytes, str, str, str], None] = {}
        """Peers that were admitted, with the binding: each is reported once."""
        self._grant_key = grant_key
        self._waiting = waiting
        self._workers = workers
        self._registry = registry
        self._book = book
        self._publisher = publisher
        self._grace = grace
        self._expected = expected
        self._waits = waits
        self._pool = pool
        self._revocation = revocation

    def on_sender_gone(self, sender: Sender) -> None:
        """Remove what the process had registered. Calls to it are held for a while, because it may come back."""
        if self._registry.remove_sender(sender):
            self._waiting.changed()
            self._grace.reopen()
            self._expected.changed()

    async def handle(self, sender: Sender, message: RegistrationRequest) -> Message:
        """Carry out one request and return the reply.

        Raises:
            Forbidden: the grant is for something else, or another process registered the identity.
            IdentityOffline: the identity is not online.
            BadMessage, InvalidName: the binding's description is wrong.
            P2PError: the vault refuses to sign the identity's delegation.
        """
        if isinstance(message, RegisterIdentity):
            check_grant(self._grant_key, message.identity, message.grant)
            await self._publisher.bring_online(message.identity, sender, listed=message.listed)
            self._on_online(message.identity)
            self.sleepers.on_registered(message.identity)
            self._grace.on_registration()
        elif isinstance(message, RegisterBinding):
            await self._register_binding(sender, message)
        elif isinstance(message, UnregisterBinding):
            identity = self._registry.by_name(message.identity)
            if not self._registry.unregister(message.identity, message.protocol, message.instance, sender):
                self._identity_of(message.identity, sender)
            elif identity is not None and identity.sender is sender:
                await self._revocation.binding_ended(identity.raw, message.protocol, message.instance)
            self._expected.changed()
            self._waiting.changed()
        elif isinstance(message, RequestSleep):
            return self.sleepers.request_sleep(sender, self._identity_of(message.identity, sender), message)
        elif isinstance(message, ReportWaiting):
            binding = self._identity_of(message.identity, sender).bindings.get((message.protocol, message.instance))
            if binding is not None:
                binding.waiting = max(0, message.count)
                binding.problem = message.problem[:MAX_REASON]
                self._waiting.changed()
        else:
            identity = self._identity_of(message.identity, sender)
            await self._publisher.bring_offline(identity)
            await self._revocation.identity_offline(identity)
            self._waiting.changed()
        return Ack()

    async def _register_binding(self, sender: Sender, message: RegisterBinding) -> None:
        check_name(message.protocol, "a protocol")
        check_name(message.instance, "an instance")
        if sender.is_remote:
            self._register_worker(sender, message)
            return
        if not message.allow:
            raise BadMessage(reason="an access list is empty")
        binding = message.identity, message.protocol, message.instance
        access = self.access_list(*binding, message.allow)
        limit = message.limit if 0 < message.limit < MAX_CALLS_PER_BINDING else MAX_CALLS_PER_BINDING
        subject = program_subject(message.identity, message.protocol, message.instance)
        is_program = verify_grant(self._grant_key, subject, message.grant)
        if not is_program:
            check_grant(self._grant_key, message.identity, message.grant)
        self._registry.homes.note(*binding, keeps_state=message.keeps_state)
        self._registry.stateless.note(*binding, stateless=message.stateless)
        if is_program:
            self._registry.serve_by_program(*binding, access, sender, limit, claims_calls=message.claims_calls)
            self._expected.changed()
        else:

            def register(identity: OnlineIdentity) -> None:
                names = message.protocol, message.instance
                claims = message.claims_calls
                self._registry.serve(identity, *names, access, sender, limit=limit, claims_calls=claims)

            if not await self._publisher.serve(message.identity, register):
                raise IdentityOffline(identity=message.identity)
        self._grace.on_registration()
        if message.keeps_state:
            await self.on_stateful(message.identity)
        await self._revocation.access_changed()

    def _register_worker(self, sender: Sender, message: RegisterBinding) -> None:
        """Have a worker serve the binding of its token, with the access list that the owner has set."""
        allow = self._workers.access_of(sender, message)
        binding = message.identity, message.protocol, message.instance
        self._registry.stateless.note(*binding, stateless=message.stateless)
        sender.pid = -1 - int.from_bytes(message.worker[:_WORKER_BYTES])
        limit = message.limit if 0 < message.limit < MAX_CALLS_PER_BINDING else MAX_CALLS_PER_BINDING
        access = self.access_list(*binding, allow)
        self._registry.serve_by_program(*binding, access, sender, limit, claims_calls=message.claims_calls)
        self._expected.changed()
        self._grace.on_registration()

    async def set_worker_bindings(self, bindings: tuple[WorkerBinding, ...]) -> None:
        """Set which bindings workers on other machines may serve, and with which access lists."""
        for sender, message in self._workers.replace(bindings):
            self._register_worker(sender, message)
        await self._revocation.access_changed()

    def access_list(self, identity: str, protocol: str, instance: str, allow: tuple[str, ...]) -> AccessList:
        """Return the access list of a binding."""
        access = AccessList(allow, self._book, self._registry, (identity, protocol, instance))
        access.on_admitted = partial(self._on_admitted, identity, protocol, instance)
        self._book.known.add_named(access.keys)
        return access

    def _on_admitted(self, identity: str, protocol: str, instance: str, key: bytes, entry: str) -> None:
        """Report a peer that uses a binding for the first time since this process started."""
        what = (key, identity, protocol, instance)
        if what not in self._admitted:
            self._admitted[what] = None
            if len(self._admitted) > _MAX_ADMITTED:
                del self._admitted[next(iter(self._admitted))]
            binding = f"{identity}/{protocol}/{instance}"
            self._audit.record("admitted", peer=id52_of(key), binding=binding, by=entry)

    def _on_online(self, name: str) -> None:
        """Notify programs that wait for the identity, here and at peer daemons."""
        identity = self._registry.by_name(name)
        if identity is not None:
            self._book.known.add_named([identity.raw])  # other daemons may speak for it, too
            self._waits.on_online(identity.raw)
            self._pool.wants.came_online(identity.raw)

    def _identity_of(self, name: str, sender: Sender) -> OnlineIdentity:
        """Return the identity. Raise Forbidden if another process has registered it."""
        identity = self._registry.by_name(name)
        if identity is None:
            raise IdentityOffline(identity=name)
        if identity.sender is not sender:
            raise Forbidden(role="another process", request=f"to speak for {name!r}")
        return identity
