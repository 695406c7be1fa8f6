"""Parts that the commands ``fastn-p2p mail`` share: access to the owner's mailbox, attachments as files, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, InstanceNotFound, ProtocolNotFound
from fastn_p2p_client.limits import DEFAULT_INSTANCE
from fastn_p2p_client.mail.client import MailClient
from fastn_p2p_client.mail.messages import Attachment, MailContent, ReceivedMail

from ...console.control_request import with_daemon
from ...console.exit_codes import CommandFailed, ExitCode
from ...console.formatting import utc_time
from ...console.home_notice import note_home
from .._shared.name_risks import risks_of
from .._shared.path_names import check_component

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
    "NotHome": ExitCode.PEER,
}
"""Exit code of a command, by the kind of the application error."""


class RiskyName(Exception):
    """The name of an attachment is hidden, executable or odd; see ``_shared.name_risks``."""


def with_mail(home: Path | None, identity: str | None, instance: str, work: Callable[[MailClient], Awaitable[T]]) -> T:
    """Run ``work`` with the mailbox of a local identity, in an event loop of its own. Raise the error that it raises.

    Write where the home of the mailbox is, if that is another daemon.

    Raises:
        CommandFailed: the identity has no such mailbox, or Mail has refused the request.
    """

    async def run() -> T:
        async with Client(home, program="fastn-p2p mail") as client:
            try:
                done = await work(MailClient(identity, instance, client=client))
                await note_home(client, identity, "Mail", instance)
                return done
            except (ProtocolNotFound, InstanceNotFound):
                name, _ = await client.resolve_identity(identity)
                option = "" if instance == DEFAULT_INSTANCE else f" --instance {instance}"
                raise CommandFailed(
                    f"{name} has no mailbox {instance!r}. "
                    f"Create it: fastn-p2p add-protocol {name} --protocol Mail{option}",
                    ExitCode.NOT_FOUND,
                    "binding-not-found",
                ) from None
            except ApplicationError as error:
                exit_code = EXITS.get(error.kind, ExitCode.APPLICATION)
                raise CommandFailed(
                    error.message or error.kind, exit_code, "application-error", kind=error.kind
                ) from None

    return asyncio.run(run())


def petnames(home: Path | None) -> dict[str, str]:
    """Return the address book: ID52 -> petname."""
    return {peer.id52: peer.name for peer in with_daemon(home, lambda client: client.peers.list())}


def save_attachments(attachments: Sequence[Attachment], directory: Path, *, hidden: bool = False) -> list[Path]:
    """Write each attachment under its name into an existing directory; return the paths. Overwrite nothing.

    Args:
        hidden: also save names that are hidden, executable or odd.

    Raises:
        UnsafeName, RiskyName: a name may not be used; no file was written.
        FileExistsError: a file has one of the names already; the files that were written are removed again.
        OSError: a file cannot be written; the files that were written are removed again.
    """
    names = [check_component(attachment.name) for attachment in attachments]
    for name in names:
        risks = risks_of(name)
        if risks and not hidden:
            raise RiskyName(f"the name {name!r} is {' and '.join(risks)}")
    written: list[Path] = []
    try:
        for name, attachment in zip(names, attachments, strict=True):
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(attachment.content)
    except OSError:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return written


def time_text(milliseconds: int) -> str:
    """Return a time of a mail, in UTC. The peer may have written any number."""
    return utc_time(milliseconds // 1000)


def whole_mail(mail: ReceivedMail) -> dict[str, Any]:
    """Return a mail as JSON shows it, without the contents of attachments."""
    content: MailContent = mail.letter
    return {
        "summary": mail.summary,
        "body": content.body,
        "attachments": [{"name": each.name, "size": len(each.content)} for each in content.attachments],
    }
