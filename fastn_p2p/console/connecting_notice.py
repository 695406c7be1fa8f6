"""Message on a terminal that a peer is not connected yet, so that a waiting command does not seem to hang."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, P2PError
from fastn_p2p_client.limits import MAX_NAME

from .output import write_message

T = TypeVar("T")

NOTICE_AFTER: Final = 1.0
"""Seconds before the message."""
_PROBE_TIMEOUT: Final = 0.5
"""Seconds in which a connected peer answers a probe. If it does, the handler is slow, not the connection."""


async def connecting(client: Client, identity: str | None, peer: str, work: Awaitable[T]) -> T:
    """Await ``work`` and return its result. Print a message if the peer is not connected after a second.

    Prints nothing if standard error is not a terminal. An error that may concern the way to the peer gets a note that
    names the next step.
    """
    try:
        return await _with_notice(client, identity, peer, work)
    except (DeadlineExceeded, ConnectionLost) as error:
        error.add_note(
            f"See whether the peer's daemon answers: fastn-p2p ping {peer if len(peer) <= MAX_NAME else 'PEER'}"
        )
        raise


async def _with_notice(client: Client, identity: str | None, peer: str, work: Awaitable[T]) -> T:
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
        await client.wait_until_online(identity, peer, timeout=_PROBE_TIMEOUT)
    except DeadlineExceeded:
        write_message(f"connecting to {peer if len(peer) <= MAX_NAME else 'the peer'}...")
    except P2PError:
        return  # the command reports it
