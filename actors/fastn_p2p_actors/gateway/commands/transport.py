"""Command that replaces the transport key, the key of this daemon's endpoint.

The vault commits the new key first. Then the network process is restarted, because an endpoint has one key for its
life. Its identities register again: their delegations and records name the new endpoint, with a higher epoch, and
retire the old one. ``finish_rotation`` does what an interrupted command has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from fastn_p2p_client.errors import P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import Ack, RotateTransport, TransportReply

from ...network.admin_messages import GetNetworkReport, NetworkReportReply, PrepareRestart
from ...vault import messages as vault
from ..context import GatewayContext
from .replicas import check_not_joined

_RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to finish a rotation."""

log = logging.getLogger(__name__)


async def rotate_transport(context: GatewayContext, _: RotateTransport, __: bytes) -> TransportReply:
    check_not_joined(context, "replacing the transport key, which its owner's vault has enrolled,")
    async with context.transport_lock:
        try:
            key = await context.vault.request(vault.RotateTransportKey(), vault.EndpointKey)
            await _move(context)
        except VaultLocked:
            raise
        except P2PError:
            context.spawn(finish_rotation(context))
            raise
    return TransportReply(key.public.hex(), key.epoch, key.created)


async def finish_rotation(context: GatewayContext) -> None:
    """Restart the network process if it has an older key than the vault."""
    while True:
        try:
            async with context.transport_lock:
                key = await context.vault.request(vault.GetEndpoint(), vault.EndpointKey)
                reply = await context.network.request(GetNetworkReport(1), NetworkReportReply)
                if reply.report.endpoint != key.public.hex():
                    log.warning("the network process has an older transport key: restarting it")
                    await _move(context)
            return
        except VaultLocked:
            return  # the network process gets the key when the vault is unlocked
        except P2PError as error:
            log.debug("the transport key of the network process is not known yet: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)


async def _move(context: GatewayContext) -> None:
    with contextlib.suppress(P2PError):  # without it, the next process connects to known peers only
        await context.network.request(PrepareRestart(), Ack)
    await context.supervisor.restart_network()
