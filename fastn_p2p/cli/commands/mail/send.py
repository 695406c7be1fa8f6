from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....console.exit_codes import CommandLineError
from ....console.options import (
    HomeOption,
    PeerArgument,
)
from ....console.output import (
    put_json,
    write_message,
    write_result,
)
from ....protocols.mail.options import (
    LinesOption,
    MailboxOption,
    OwnerOption,
)

if TYPE_CHECKING:
    from fastn_p2p_client.mail.messages import Attachment


def run(
    peer: PeerArgument,
    subject: Annotated[str, typer.Option("--subject", metavar="TEXT", help="What it is about.")],
    attach: Annotated[
        list[Path] | None,
        typer.Option("--attach", metavar="FILE", help="A file that goes along; repeatable.", show_default=False),
    ] = None,
    peer_instance: Annotated[
        str, typer.Option("--peer-instance", metavar="INSTANCE", help="Which mailbox of the peer.", show_default=True)
    ] = "default",
    id: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="TEXT",
            help="An id of your own: the same mail with the same id is sent once, however often this runs.",
            show_default=False,
        ),
    ] = "",
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: LinesOption = False,
    home: HomeOption = None,
) -> None:
    """Send a mail.

    The body is text from standard input. When this ends the mail is on disk here, and its id is printed; it is
    delivered when the peer is online, or comes back: see `fastn-p2p mail outbox`.
    """
    from fastn_p2p_client.errors import ApplicationError
    from fastn_p2p_client.mail.messages import MAX_SUBJECT

    from ....console.json_values import check_text
    from ....protocols.mail.cli import (
        report_error,
        with_mail,
    )

    for option, text in (("--subject", subject), ("--id", id), ("PEER", peer)):
        check_text(text, option)  # before somebody types the body
    if len(subject) > MAX_SUBJECT:
        raise CommandLineError(f"--subject: it has {len(subject)} characters, {MAX_SUBJECT} are allowed")
    if len(id) > 64:
        raise CommandLineError(f"--id: it has {len(id)} characters, 64 are allowed")
    body, attachments = _body(), _attachments(attach or [])
    try:
        accepted = with_mail(
            home,
            identity,
            instance,
            lambda mail: mail.send(peer, subject, body, attachments, instance=peer_instance, id=id),
        )
    except ApplicationError as error:
        raise typer.Exit(report_error(error)) from None
    if json:
        put_json(accepted)
        return
    write_message(f"mail {accepted.number} is accepted")
    write_result(accepted.id)


def _body() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        write_message("the body, then Ctrl-D on a line of its own:")
    body = sys.stdin.buffer.read()
    try:
        return body.decode()
    except UnicodeDecodeError:
        if not sys.stdin.isatty():
            raise CommandLineError("the body is not UTF-8 text; attach what is none (--attach FILE)") from None
    write_message("what you typed or pasted has bytes that are no UTF-8; each is sent as �")
    return body.decode(errors="replace")


def _attachments(paths: list[Path]) -> list[Attachment]:
    """Read into memory, as much as can be sent at all."""
    from fastn_p2p_client.mail.messages import MAX_ATTACHMENTS, MAX_LETTER, Attachment

    from ....protocols._shared.path_names import check_component
    from ....protocols.files.errors import FileError

    if len(paths) > MAX_ATTACHMENTS:
        raise CommandLineError(f"--attach: {len(paths)} files, {MAX_ATTACHMENTS} can be attached")
    attachments, size = [], 0
    for path in paths:
        if path.is_dir():
            raise CommandLineError(f"--attach: {str(path)!r} is a directory; `fastn-p2p files put` sends those")
        try:
            with path.open("rb") as file:
                content = file.read(MAX_LETTER - size + 1)
            name = check_component(path.resolve().name if path.name in ("", "..") else path.name)
        except OSError as error:
            raise CommandLineError(f"--attach: cannot read {str(path)!r}: {error.strerror}") from None
        except FileError as error:
            raise CommandLineError(f"--attach: {error.message}") from None
        size += len(content)
        if size > MAX_LETTER:
            raise CommandLineError(
                f"--attach: a mail has at most {MAX_LETTER} bytes, attachments included; send large files with "
                "`fastn-p2p files put`"
            )
        attachments.append(Attachment(name, content))
    return attachments
