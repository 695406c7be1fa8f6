"""Endpoint of a pairing: a key of its own, any free port, and the network settings of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Final

from ..network.transport.endpoint import NetworkEndpoint
from .rendezvous import NetworkUse

ALPN: Final = b"fastn-p2p/pair/1"
"""Protocol of the connections of a pairing."""


@contextlib.asynccontextmanager
async def pairing_endpoint(use: NetworkUse) -> AsyncIterator[NetworkEndpoint]:
    """Bind an endpoint, and close it at the end.

    An interruption while it is closed after a success is ignored: both sides have stored each other by then.
    """
    endpoint = await NetworkEndpoint.bind(secrets.token_bytes(32), use.mode, None, use.relays, ALPN)
    try:
        yield endpoint
    except BaseException:
        await endpoint.close()
        raise
    with contextlib.suppress(asyncio.CancelledError):
        await endpoint.close()
