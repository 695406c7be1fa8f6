"""The one service of this machine to which a binding connects: its address comes from the config, never from a peer."""

from __future__ import annotations

import asyncio
import socket

from fastn_p2p_client.protocol import BindingContext, Permissions

from .service_address import InvalidAddress, ServiceAddress, parse_address
from .sockets import open_connection


def target_permissions(target: str) -> Permissions:
    """Return what a binding needs to reach its target; nothing for an invalid one, which ``on_check`` reports."""
    try:
        return Permissions(connect=[str(parse_address(target))])
    except InvalidAddress:
        return Permissions()


def target_address(target: str) -> ServiceAddress:
    """Return the address of the config's field ``target``.

    Raises:
        InvalidAddress: it is not an address.
    """
    try:
        address = parse_address(target)
    except InvalidAddress as error:
        raise InvalidAddress(f"target: {error}") from None
    if address.path and not address.path.startswith("/"):
        raise InvalidAddress(f"target: the path of a Unix socket must be absolute, unlike {address.path!r}")
    return address


async def connect_target(context: BindingContext, target: str, timeout: float) -> socket.socket:
    """Return a connection to the target, which does not block.

    Raises:
        TimeoutError: the target does not accept it in time.
        OSError: it cannot be reached.
    """
    async with asyncio.timeout(timeout):
        address = target_address(target)
        return await (context.connect_unix(address.path) if address.path else open_connection(address))
