"""Two ends of a session in one process."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import Final

from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair

__all__ = ["STREAMS", "open_pair", "outcome", "read_all"]

STREAMS: Final = [random.Random(side).randbytes(200_000) for side in (0, 1)]
"""Bytes that each end writes."""


async def open_pair() -> tuple[Session, Session]:
    """Return the two ends of an open session."""
    here, there = session_pair()
    there.accept()
    await here.opened
    return here, there


async def read_all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])


async def outcome(work: Awaitable[object]) -> object:
    """Return the result of ``work``, or its error."""
    try:
        return await work
    except Exception as error:
        return error
