from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandFailed, ExitCode
from ....console.options import HomeOption, MailboxOption, MailJsonOption, OwnerOption, make_directory
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from fastn_p2p_client.mail.messages import Attachment


def run(
    number: Annotated[int, Argument(metavar="N", min=1, help="The mail's number, from `fastn-p2p mail list`.")],
    save: Annotated[
        Path | None,
        Option(metavar="DIRECTORY", help="Save attachments here; made when it is missing.", show_default=False),
    ] = None,
    hidden: Annotated[
        bool, Option("--hidden", help="Also save attachments whose names are hidden, executable or odd.")
    ] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: MailJsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print a mail, and mark it as read.

    The body goes to standard output, everything else to standard error.
    """
    from ....protocols.mail.cli import time_text, whole_mail, with_mail

    if save is not None:
        make_directory(save, "--save")
    mail = with_mail(home, identity, instance, lambda each: each.read(number))
    summary, content = mail.summary, mail.letter
    if json:
        put_json(whole_mail(mail))
    else:
        write_message(f"From: {summary.name} ({summary.sender})" if summary.name else f"From: {summary.sender}")
        write_message(f"Mailbox: {summary.instance}")
        write_message(f"Sent: {time_text(summary.sent)}, received: {time_text(summary.received)}")
        write_message(f"Subject: {content.subject}")
        for attachment in content.attachments:
            write_message(f"Attachment: {attachment.name} ({len(attachment.content)} bytes)")
        write_message("")
        write_result(content.body, end="" if content.body.endswith("\n") else "\n")
    if save is not None:
        _save(mail.letter.attachments, save, hidden=hidden)
    elif content.attachments and not json:
        write_message("Save the attachments with --save DIRECTORY.")


def _save(attachments: tuple[Attachment, ...], directory: Path, *, hidden: bool) -> None:
    from ....protocols._shared.path_names import UnsafeName
    from ....protocols.mail.cli import RiskyName, save_attachments

    try:
        for path in save_attachments(attachments, directory, hidden=hidden):
            write_message(f"Saved {path}")
    except FileExistsError as error:
        raise CommandFailed(
            f"{error.filename} already exists, so nothing was saved. Choose another directory",
            ExitCode.EXISTS,
            "file-exists",
            path=str(error.filename),
        ) from None
    except RiskyName as error:
        text = f"{error}, so nothing was saved. Save it all the same with --hidden"
        raise CommandFailed(text, ExitCode.DENIED, "risky-name") from None
    except UnsafeName as error:
        raise CommandFailed(f"{error}, so nothing was saved", ExitCode.HANDLER, "unsafe-name") from None
    except OSError as error:
        text = f"cannot save in {directory}: {error.strerror}. Nothing was saved"
        raise CommandFailed(text, ExitCode.STORAGE, "storage-failed", path=str(directory)) from None
