"""Requests of a command to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.ipc.messages import RequestFor

ReplyT = TypeVar("ReplyT")
T = TypeVar("T")


def with_daemon(home: Path | None, action: Callable[[Client], Awaitable[T]]) -> T:
    """Run ``action`` with a client of the daemon of ``home``, in an event loop of its own. Raise what it raises."""

    async def run() -> T:
        async with Client(home, program="fastn-p2p") as client:
            return await action(client)

    return asyncio.run(run())


def request_daemon(
    home: Path | None, message: RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = 60.0
) -> ReplyT:
    """Send a control request to the daemon of ``home`` and return its reply.

    Raises:
        P2PError: the error reply of the daemon, or the reason why it did not answer.
    """
    return with_daemon(home, lambda client: client.control(message, payload, timeout=timeout))
