"""``fastn-p2p chat``: in a terminal, or with what is piped in and out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Final

from fastn_p2p_client.chat.client import (
    PROTOCOL,
    ChatClient,
)
from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, InstanceNotFound, ProtocolNotFound
from fastn_p2p_client.limits import DEFAULT_INSTANCE

from ...console.connecting_notice import connecting
from ...console.exit_codes import ExitCode
from ...console.output import write_message

_LAST: Final = 20
_EXITS: Final = {
    "TooManyWaiting": ExitCode.OVERLOADED,
    "TooManyPeers": ExitCode.OVERLOADED,
    "TooManySessions": ExitCode.OVERLOADED,
    "TooLong": ExitCode.USAGE,
    "NoConversation": ExitCode.USAGE,
}


def in_terminal() -> bool:
    """Whether both standard input and output are one."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def chat(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    conversation: str,
    *,
    last: int | None,
    json: bool,
    wait: bool,
    timeout: float | None,
) -> ExitCode:
    """Until it is left, or the input ends.

    Raises:
        P2PError: see ``ChatClient``; ``DeadlineExceeded``: with ``wait``, the peer has not come in time.
        OSError: of standard input or output.
    """

    async def converse() -> ExitCode:
        async with Client(home, program="fastn-p2p chat") as client:
            found = await ChatClient(client, identity, instance).with_peer(peer, conversation)
            if in_terminal() and not json:
                from .terminal_ui import ChatTerminal

                interrupted = await ChatTerminal(found, last=_LAST if last is None else last).run()
                return ExitCode.INTERRUPTED if interrupted else ExitCode.OK
            from .piped_ui import PipedConversation

            piped = PipedConversation(found, last=last or 0, json=json, delivered=wait, timeout=timeout).run()
            if wait and not json:
                await connecting(client, identity, peer, piped)
            else:
                await piped
            return ExitCode.OK

    try:
        with contextlib.suppress(BrokenPipeError):
            return asyncio.run(converse())
    except ApplicationError as error:
        write_message(f"fastn-p2p: {error.message or error.kind}")
        return _EXITS.get(error.kind, ExitCode.APPLICATION)
    except (ProtocolNotFound, InstanceNotFound):
        alias = "" if instance == DEFAULT_INSTANCE else f" --alias {instance}"
        command = f"fastn-p2p add-protocol IDENTITY --protocol {PROTOCOL}{alias}"
        write_message(f"fastn-p2p: this needs a {PROTOCOL} of your own: {command}")
        return ExitCode.NOT_FOUND
    return ExitCode.PIPE
