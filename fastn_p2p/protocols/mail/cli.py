"""What the commands of ``fastn-p2p mail`` share: the way to one's own mailbox, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, InstanceNotFound, ProtocolNotFound
from fastn_p2p_client.ipc.messages import (
    ListPeers,
    PeerList,
)
from fastn_p2p_client.limits import DEFAULT_INSTANCE
from fastn_p2p_client.mail.client import MailClient
from fastn_p2p_client.mail.messages import MailContent, ReceivedMail
from fastn_p2p_client.owner import resolve_identity

from ...console.control_request import request_daemon
from ...console.exit_codes import ExitCode
from ...console.output import write_message

__all__ = ["EXITS", "petnames", "report_error", "time_text", "whole_mail", "with_mail"]

T = TypeVar("T")

EXITS: Final[dict[str, ExitCode]] = {
    "MailUnknown": ExitCode.NOT_FOUND,
    "IdTaken": ExitCode.EXISTS,
    "OutboxFull": ExitCode.OVERLOADED,
    "TooLarge": ExitCode.USAGE,
    "TooManyAttachments": ExitCode.USAGE,
    "UnsafeName": ExitCode.USAGE,
    "BadLetter": ExitCode.HANDLER,
    "BadOrder": ExitCode.HANDLER,
    "Rewound": ExitCode.HANDLER,
    "NotOwner": ExitCode.DENIED,
}
"""How a command ends that the protocol refuses, by kind."""


def with_mail(home: Path | None, identity: str | None, instance: str, work: Callable[[MailClient], Awaitable[T]]) -> T:
    """``work`` with a mailbox of an identity of this daemon, in an event loop of its own. Raises what it raises.

    Raises:
        typer.Exit: the identity has no such mailbox.
    """

    async def conversation() -> T:
        async with Client(home, program="fastn-p2p mail") as client:
            try:
                return await work(MailClient(identity, instance, client=client))
            except (ProtocolNotFound, InstanceNotFound):
                name, _ = await resolve_identity(client, identity)
                alias = "" if instance == DEFAULT_INSTANCE else f" --alias {instance}"
                write_message(
                    f"fastn-p2p: {name} has no mailbox {instance!r}; "
                    f"`fastn-p2p add-protocol {name} --protocol Mail{alias}` makes it"
                )
                raise typer.Exit(ExitCode.NOT_FOUND) from None

    return asyncio.run(conversation())


def petnames(home: Path | None) -> dict[str, str]:
    """ID52 → name in the address book."""
    return {peer.id52: peer.name for peer in request_daemon(home, ListPeers(), PeerList).peers}


def report_error(error: ApplicationError) -> ExitCode:
    """Says why a command has failed, and how it ends."""
    write_message(f"fastn-p2p: {error.message or error.kind}")
    return EXITS.get(error.kind, ExitCode.APPLICATION)


def time_text(milliseconds: int) -> str:
    """A time of a mail, which may be whatever a stranger has written."""
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "?"


def whole_mail(mail: ReceivedMail) -> dict[str, Any]:
    """A mail as JSON shows it; the contents of attachments are left out."""
    letter: MailContent = mail.letter
    return {
        "summary": mail.summary,
        "body": letter.body,
        "attachments": [{"name": each.name, "size": len(each.content)} for each in letter.attachments],
    }
