"""Process of the vault: its mailbox, its start and its end."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.runtime.curve.mailbox import CurveMailbox, CurveSender
from fastn_p2p_actors.runtime.process_setup import forbid_core_files, is_sibling, make_undumpable
from fastn_p2p_actors.runtime.specs import VaultSettings
from fastn_p2p_client.errors import BadMessage, InternalError, P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE, ErrorReply, encode

from .audit_log import AuditLog
from .key_store import KeyStore
from .locked_memory import LockedMemory
from .messages import VaultRequest
from .vault import Vault

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
            self._log.warning("%s for %s: %s", type(request).__name__, role, error)
            return encode(ErrorReply.of(error))
        except Exception as error:
            self._log.exception("%s for %s", type(request).__name__, role)
            return encode(ErrorReply.of(InternalError(reason=f"{type(error).__name__} in the vault")))


async def serve(context: ActorContext) -> None:
    """Run the vault until ``context.stop_requested``. Then no secret is left in its memory.

    Raises:
        HomeUnusable: its directory cannot be used.
        StorageFailed: its transport key cannot be read or written.
    """
    settings = context.load_settings(VaultSettings)
    make_undumpable()
    forbid_core_files()
    memory = LockedMemory()
    try:
        store = KeyStore(context.home.vault, memory, time.time)
        store.open()
        audit = AuditLog(context.home.audit_log)
        server = VaultServer(Vault(store, time.time, audit.record), context.log)

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
        )
        box.open()
        try:
            context.ready()
            await context.stop_requested.wait()
            await asyncio.sleep(0)  # messages that have arrived by now still get a reply
        finally:
            box.close()
            audit.close()
    finally:
        memory.wipe()
