"""Process of the vault: its mailbox, its start and its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.runtime.curve.mailbox import CurveMailbox, CurveSender
from fastn_p2p_actors.runtime.process_setup import daemon_processes, forbid_core_files, is_sibling, make_undumpable
from fastn_p2p_actors.runtime.sandbox.roles import vault_sandbox
from fastn_p2p_actors.runtime.specs import VaultSettings
from fastn_p2p_client.errors import BadMessage, InternalError, P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, ErrorReply, encode

from .access_policy import OWNER, check_allowed
from .audit_events import VAULT
from .audit_log import AuditLog
from .backups import Backups
from .key_file import prepare_directory
from .key_lock import KeyLock
from .key_store import KeyStore
from .locked_memory import LockedMemory
from .messages import VaultRequest
from .owner_messages import (
    AddSlot,
    CheckSecret,
    CreateBackup,
    LockVault,
    OpenBackup,
    OwnerReply,
    OwnerRequest,
    RemoveSlot,
    SetPassphrase,
    UnlockVault,
)
from .owner_socket import OwnerSocket
from .passphrase import PRODUCT_COST, Argon2Cost
from .slot_changes import SlotChanges
from .vault import Vault

_WITH_SECRET: Final = SetPassphrase | AddSlot | RemoveSlot | CheckSecret | UnlockVault
"""Requests that need a descriptor."""
_BACKUP_DESCRIPTORS: Final = 3
_decoder: msgspec.msgpack.Decoder[VaultRequest] = msgspec.msgpack.Decoder(VaultRequest)


class VaultServer:
    """Decodes messages of the mailbox for the vault, and encodes its replies."""

    def __init__(self, vault: Vault, log: logging.Logger) -> None:
        self._vault = vault
        self._log = log

    def handle(self, role: str, header: bytes) -> bytes | None:
        """Return the encoded reply; None if the message has none. Never raises."""
        try:
            request = _decoder.decode(header)
        except UNDECODABLE as error:
            self._log.warning("%s sent an invalid message", role)
            return encode(ErrorReply.of(BadMessage(reason=str(error))))
        try:
            answer = self._vault.answer(role, request)
            return None if answer is None else encode(answer)
        except P2PError as error:
            level = logging.DEBUG if isinstance(error, VaultLocked) else logging.WARNING
            self._log.log(level, "%s for %s: %s", type(request).__name__, role, error)
            return encode(ErrorReply.of(error))
        except Exception as error:
            self._log.exception("%s for %s", type(request).__name__, role)
            return encode(ErrorReply.of(InternalError(reason=f"{type(error).__name__} in the vault")))


class OwnerRequests:
    """Requests of the owner, carried out by the lock."""

    def __init__(self, vault: Vault, lock: KeyLock, slots: SlotChanges, backups: Backups) -> None:
        self._vault = vault
        self._lock = lock
        self._slots = slots
        self._backups = backups

    async def handle(self, request: OwnerRequest, descriptors: list[int]) -> OwnerReply:
        """Carry out one request and return the reply.

        Raises:
            BadMessage: a descriptor is missing.
            P2PError: the request failed.
        """
        check_allowed(OWNER, self._vault.state, request)
        if isinstance(request, _WITH_SECRET) and not descriptors:
            raise BadMessage(reason="the descriptor of the passphrase is missing")
        if isinstance(request, CreateBackup | OpenBackup):
            return await self._backup(request, descriptors)
        second = descriptors[1] if len(descriptors) > 1 else None
        match request:
            case SetPassphrase():
                await self._slots.set_passphrase(descriptors[0], second)
            case AddSlot(kind, name, replace):
                await self._slots.add(kind, name, descriptors[0], second, replace=replace)
            case RemoveSlot(name, decrypt):
                await self._slots.remove(name, descriptors[0], decrypt=decrypt)
            case CheckSecret():
                await self._slots.check(descriptors[0])
            case UnlockVault(seconds):
                await self._lock.unlock(descriptors[0], seconds)
            case LockVault():
                await self._lock.lock()
        return self._lock.status()

    async def _backup(self, request: CreateBackup | OpenBackup, descriptors: list[int]) -> OwnerReply:
        if len(descriptors) != _BACKUP_DESCRIPTORS:
            raise BadMessage(reason="a backup needs three descriptors")
        first, second, third = descriptors
        if isinstance(request, CreateBackup):
            await self._backups.create(request, first, second, third)
            return Ack()
        return await self._backups.open(request, first, second, third)


async def serve(context: ActorContext, cost: Argon2Cost = PRODUCT_COST) -> None:
    """Run the vault until ``context.stop_requested``. Then no secret is left in its memory.

    Args:
        cost: cost of argon2id for new passphrases.

    Raises:
        HomeUnusable: its directory cannot be used.
        StorageFailed: its transport key cannot be read or written.
    """
    settings = context.load_settings(VaultSettings)
    make_undumpable()
    forbid_core_files()
    prepare_directory(context.home.vault)
    context.enter_sandbox(vault_sandbox(context.home))
    memory = LockedMemory()
    try:
        store = KeyStore(context.home.vault, memory, time.time)

        def record(event: str, fields: Mapping[str, object]) -> None:
            audit.record(VAULT, event, fields)

        lock = KeyLock(context.home.vault, store, memory, keep=context.keep_descriptor, record=record)
        slots = SlotChanges(lock, store, record=record, cost=cost)
        audit = AuditLog(context.home.audit_log)
        lock.open(context.kept_descriptor)
        backups = Backups(store, memory, lock.busy, partial(audit.record, VAULT))
        vault = Vault(store, time.time, audit.record, lock, backups)
        server = VaultServer(vault, context.log)

        def on_message(caller: CurveSender, correlation: bytes, header: bytes, _payload: bytes) -> None:
            answer = server.handle(caller.role, header)
            if answer is not None:
                box.send(caller, correlation, answer)

        box = CurveMailbox(
            context.home.mailbox(context.name),
            on_message,
            server_secret=settings.server_secret,
            roles=settings.roles,
            per_program=context.spec.connections,
            is_own=is_sibling,
            listener=context.listeners.get(context.name),
        )
        requests = OwnerRequests(vault, lock, slots, backups)
        keys = context.home.mailbox("keys")
        owner = OwnerSocket(keys, requests.handle, daemon_processes(), context.listeners.get("keys"))
        box.open()
        owner.open()
        try:
            context.ready()
            await context.stop_requested.wait()
            await asyncio.sleep(0)  # messages that have arrived by now still get a reply
        finally:
            owner.close()
            box.close()
            backups.close()
            lock.close()
            audit.close()
    finally:
        memory.wipe()
