"""``fastn-p2p stream``: connect a session to standard input and output."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import StreamReset
from fastn_p2p_client.limits import RESET_CLOSED
from fastn_p2p_client.session.session import Session

from ..concurrency import run_all
from ..console.async_stdio import StdinReader, StdoutWriter, VisibleOutput
from ..console.connecting_notice import connecting
from ..console.exit_codes import ExitCode
from ..console.output import has_output, is_terminal


def stream(
    home: Path | None,
    identity: str | None,
    peer: str,
    protocol: str,
    instance: str,
    initial: Any,
    timeout: float,
    raw: bool,
    request_id: str,
) -> ExitCode:
    """Open a session and copy until both directions have ended. Return the exit code.

    Args:
        raw: write received bytes to a terminal unchanged; otherwise control characters are escaped.
        request_id: name of the session in logs; empty to have one made.

    Raises:
        ApplicationError, P2PError: from ``Client.connect``; later ``StreamReset`` or ``ConnectionLost``.
        OSError: standard input cannot be read, or standard output cannot be written.
    """
    import uvloop

    from fastn_p2p_actors.runtime.process_setup import tune_malloc

    if not has_output():
        raise OSError("standard output is closed")
    tune_malloc()

    async def run_session() -> None:
        async with Client(home, program="fastn-p2p stream") as client:
            opening = client.connect(
                identity, peer, protocol, instance, initial, timeout=timeout, request_id=request_id
            )
            session = await connecting(client, identity, peer, opening)
            async with session:
                await connect_stdio(
                    session, StdinReader(), StdoutWriter() if raw or not is_terminal() else VisibleOutput()
                )

    try:
        uvloop.run(run_session())
    except BrokenPipeError:
        return ExitCode.PIPE
    return ExitCode.OK


async def connect_stdio(session: Session, source: StdinReader, sink: StdoutWriter) -> None:
    """Send all of ``source`` and its end to the session; write received bytes and their end to ``sink``.

    If the peer stops reading, the rest of ``source`` is not read. This is no error.

    Raises:
        StreamReset, ConnectionLost: one direction ended early.
        OSError: the source cannot be read, or the sink cannot be written.
    """
    sending = asyncio.ensure_future(_send(session, source))
    receiving = asyncio.ensure_future(_receive(session, sink))
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_EXCEPTION)
        if sending.done() and isinstance(sending.exception(), StreamReset):
            await receiving  # the peer stopped reading; its reply may still arrive
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
