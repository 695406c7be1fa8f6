"""Notice for people that a peer has not been reached yet: a command that waits would look as if it hung."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import DeadlineExceeded, P2PError
from fastn_p2p_client.limits import MAX_NAME

from .output import write_message

T = TypeVar("T")

NOTICE_AFTER: Final = 1.0
"""Seconds until people are told."""
_LOOK: Final = 0.5
"""Seconds in which a peer that is connected answers that it is there; then it is the handler that takes its time."""


async def connecting(client: Client, identity: str | None, peer: str, work: Awaitable[T]) -> T:
    """Return what ``work`` returns; on a terminal, say after a second if there is no connection to the peer yet.

    Nothing is said where standard error is no terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return await work
    notice = asyncio.ensure_future(_notice(client, identity, peer))
    try:
        return await work
    finally:
        notice.cancel()
        with suppress(asyncio.CancelledError):
            await notice


async def _notice(client: Client, identity: str | None, peer: str) -> None:
    await asyncio.sleep(NOTICE_AFTER)
    try:
        await client.wait_until_online(identity, peer, timeout=_LOOK)
    except DeadlineExceeded:
        write_message(f"connecting to {peer if len(peer) <= MAX_NAME else 'the peer'}...")
    except P2PError:
        return  # the command itself ends with it
