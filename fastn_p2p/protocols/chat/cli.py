"""``fastn-p2p chat``: choose the user interface and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Final

from fastn_p2p_client.chat.client import PROTOCOL, ChatClient
from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, InstanceNotFound, ProtocolNotFound
from fastn_p2p_client.limits import DEFAULT_INSTANCE

from ...console.connecting_notice import connecting
from ...console.exit_codes import CommandFailed, ExitCode
from ...console.home_notice import note_home

_LAST: Final = 20
"""Earlier messages that a terminal shows first."""
_EXITS: Final = {
    "TooManyWaiting": ExitCode.OVERLOADED,
    "TooManyPeers": ExitCode.OVERLOADED,
    "TooManySessions": ExitCode.OVERLOADED,
    "TooLong": ExitCode.USAGE,
    "NoConversation": ExitCode.USAGE,
    "NotHome": ExitCode.PEER,
}


def in_terminal() -> bool:
    """Return whether standard input and standard output are terminals."""
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
    """Run a conversation until the user quits or the input ends. Return the exit code.

    Args:
        last: number of earlier messages to show; None for the default.
        json: print events as JSON.
        wait: wait until the peer has received every piped message.
        timeout: seconds of that wait; None for no limit.

    Raises:
        P2PError: from ``ChatClient``; with ``wait`` also ``DeadlineExceeded``.
        OSError: standard input cannot be read, or standard output cannot be written.
    """

    async def converse() -> ExitCode:
        async with Client(home, program="fastn-p2p chat") as client:
            found = await ChatClient(client, identity, instance).with_peer(peer, conversation)
            await note_home(client, identity, PROTOCOL, instance)
            if in_terminal() and not json:
                from .terminal_ui import ChatTerminal

                interrupted = await ChatTerminal(found, last=_LAST if last is None else last).run()
                return ExitCode.INTERRUPTED if interrupted else ExitCode.OK
            from .piped_ui import PipedConversation

            piped = PipedConversation(found, last=last or 0, json=json, until_delivered=wait, timeout=timeout).run()
            if wait and not json:
                await connecting(client, identity, peer, piped)
            else:
                await piped
            return ExitCode.OK

    try:
        with contextlib.suppress(BrokenPipeError):
            return asyncio.run(converse())
    except ApplicationError as error:
        exit_code = _EXITS.get(error.kind, ExitCode.APPLICATION)
        raise CommandFailed(error.message or error.kind, exit_code, "application-error", kind=error.kind) from None
    except (ProtocolNotFound, InstanceNotFound):
        option = "" if instance == DEFAULT_INSTANCE else f" --instance {instance}"
        text = f"your identity has no {PROTOCOL}. Add it: fastn-p2p add-protocol IDENTITY --protocol {PROTOCOL}{option}"
        raise CommandFailed(text, ExitCode.NOT_FOUND, "binding-not-found") from None
    return ExitCode.PIPE
