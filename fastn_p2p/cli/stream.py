"""``fastn-p2p stream``: a session joined to standard input and output."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import StreamReset
from fastn_p2p_client.limits import RESET_CLOSED
from fastn_p2p_client.session.session import Session

from ..concurrency import run_all
from ..console.async_stdio import (
    StdinReader,
    StdoutWriter,
    VisibleOutput,
)
from ..console.connecting_notice import connecting
from ..console.exit_codes import ExitCode
from ..console.output import (
    has_output,
    is_terminal,
)

__all__ = ["connect_stdio", "stream"]


def stream(
    home: Path | None,
    identity: str | None,
    peer: str,
    protocol: str,
    instance: str,
    initial: Any,
    timeout: float,
    raw: bool,
) -> ExitCode:
    """Until both directions are at their end. Without ``raw`` what comes does nothing to a terminal.

    Raises:
        ApplicationError, P2PError: as ``Client.connect``; and ``StreamReset`` or ``ConnectionLost`` later on.
        OSError: standard input cannot be read, or standard output not written.
    """
    import uvloop

    from fastn_p2p_actors.runtime.process_setup import tune_malloc

    if not has_output():
        raise OSError("standard output is closed")
    tune_malloc()

    async def conversation() -> None:
        async with Client(home, program="fastn-p2p stream") as client:
            opening = client.connect(identity, peer, protocol, instance, initial, timeout=timeout)
            session = await connecting(client, identity, peer, opening)
            async with session:
                await connect_stdio(
                    session, StdinReader(), StdoutWriter() if raw or not is_terminal() else VisibleOutput()
                )

    try:
        uvloop.run(conversation())
    except BrokenPipeError:
        return ExitCode.PIPE
    return ExitCode.OK


async def connect_stdio(session: Session, source: StdinReader, sink: StdoutWriter) -> None:
    """Sends all of ``source`` and then the end, and writes what comes to ``sink`` until its end, which is passed on.

    When the other side reads no more, the rest of ``source`` stays unread, which is no error.

    Raises:
        StreamReset, ConnectionLost: one of the directions has not come to its end.
        OSError: of the source or the sink.
    """
    sending = asyncio.ensure_future(_send(session, source))
    receiving = asyncio.ensure_future(_receive(session, sink))
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_EXCEPTION)
        if sending.done() and isinstance(sending.exception(), StreamReset):
            await receiving  # it reads no more, and what it has answered is still coming
        for task in (receiving, sending):
            if task.done():
                task.result()
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
        source.close()
        sink.close()


async def _send(session: Session, source: StdinReader) -> None:
    try:
        await run_all(session.copy_from(source), session.wait_sent())
    except StreamReset as error:
        if error.reset_code != RESET_CLOSED:
            raise


async def _receive(session: Session, sink: StdoutWriter) -> None:
    try:
        await session.copy_to(sink)
    finally:
        await sink.finish()
    sink.end()
