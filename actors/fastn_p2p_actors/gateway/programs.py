"""Programs that serve: they are let in here, and tell the network themselves."""

from __future__ import annotations

from fastn_p2p_client.errors import BindingExists
from fastn_p2p_client.messages import Granted, Register
from fastn_p2p_client.names import check_name

from ..settings import grant_for, program_subject
from .desk import Desk

__all__ = ["register"]


async def register(desk: Desk, message: Register, _: bytes) -> Granted:
    identity = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    record = desk.store.identity(identity)
    if any((found.protocol, found.instance) == (protocol, instance) for found in desk.store.bindings(identity).usable):
        raise BindingExists(identity=identity, protocol=protocol, instance=instance)
    grant = grant_for(desk.settings.grant_key, program_subject(identity, protocol, instance))
    return Granted(grant, bytes(record.key), record.online)
