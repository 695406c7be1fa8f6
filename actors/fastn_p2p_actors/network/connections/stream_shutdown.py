"""Shutdown of streams: stop those that may hold unread bytes, so that QUIC frees their buffers at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from iroh.iroh_ffi import IrohError

from ...runtime.time_slices import in_time_slices
from ..wire.messages import CLOSE_PROTOCOL_ERROR

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

_STOP_TIMEOUT: Final = 0.5
"""Seconds for stopping the streams of a connection that is aborted: pending reads of them are cancelled first."""


async def stop_and_close(raw: Connection, streams: Sequence[RecvStream], reason: str) -> None:
    """Stop the streams, so that QUIC frees their buffers, and then close the connection with a protocol error.

    Until then the peer can fill more of them. So this runs in longer time slices than other work for strangers.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT):
            await stop_streams(streams)
            await _stop_unaccepted(raw.accept_bi, lambda stream: stream.recv())
            await _stop_unaccepted(raw.accept_uni, lambda stream: stream)
    raw.close(CLOSE_PROTOCOL_ERROR, reason.encode()[:128])


async def stop_streams(streams: Sequence[RecvStream]) -> None:
    """Stop the streams, so that QUIC frees their buffers."""
    async for stream in in_time_slices(streams):
        with suppress(IrohError):
            await stream.stop(CLOSE_PROTOCOL_ERROR)


async def _stop_unaccepted(accept: Callable[[], Awaitable[Any]], receiving: Callable[[Any], RecvStream]) -> None:
    """Stop the streams that QUIC holds and that were not accepted yet: they may be full."""
    async for _ in in_time_slices(itertools.repeat(None)):
        try:
            async with asyncio.timeout(0):  # only those that have arrived
                stream = await accept()
        except (TimeoutError, IrohError):
            return
        await stop_streams([receiving(stream)])
