from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, MailboxOption, MailJsonOption, OwnerOption, PeerArgument
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Option

if TYPE_CHECKING:
    from fastn_p2p_client.mail.messages import Attachment


def run(
    peer: PeerArgument,
    subject: Annotated[str, Option("--subject", metavar="TEXT", help="The subject.")],
    attach: Annotated[
        list[Path] | None,
        Option("--attach", metavar="FILE", help="A file to attach; repeatable.", show_default=False),
    ] = None,
    peer_instance: Annotated[
        str, Option("--peer-instance", metavar="INSTANCE", help="The peer's instance of Mail.", show_default=True)
    ] = "default",
    id: Annotated[
        str,
        Option(
            "--id",
            metavar="TEXT",
            help="An id of your own. A mail with the same id is sent once, however often this command runs.",
            show_default=False,
        ),
    ] = "",
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: MailJsonOption = False,
    home: HomeOption = None,
) -> None:
    """Send a mail.

    The body is read from standard input. The command stores the mail on disk and prints its id. The daemon delivers it
    when the peer is online, or bounces it: see `fastn-p2p mail outbox`.
    """
    from fastn_p2p_client.mail.messages import MAX_SUBJECT

    from ....console.json_values import check_text
    from ....protocols.mail.cli import with_mail

    for option, text in (("--subject", subject), ("--id", id), ("PEER", peer)):
        check_text(text, option)  # before a person types the body
    if len(subject) > MAX_SUBJECT:
        raise CommandLineError(f"--subject: it has {len(subject)} characters; at most {MAX_SUBJECT} are allowed")
    if len(id) > 64:
        raise CommandLineError(f"--id: it has {len(id)} characters; at most 64 are allowed")
    body, attachments = _body(), _attachments(attach or [])
    accepted = with_mail(
        home,
        identity,
        instance,
        lambda mail: mail.send(peer, subject, body, attachments, instance=peer_instance, id=id),
    )
    if json:
        put_json(accepted)
        return
    write_message(f"Mail {accepted.number} is in the outbox. Its id:")
    write_result(accepted.id)


def _body() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        write_message("Type the body, then Ctrl-D on a line of its own:")
    body = sys.stdin.buffer.read()
    try:
        return body.decode()
    except UnicodeDecodeError:
        if not sys.stdin.isatty():
            raise CommandLineError("the body is not UTF-8 text. Attach other files with --attach FILE") from None
    write_message("The text has bytes that are not UTF-8; each is sent as �")
    return body.decode(errors="replace")


def _attachments(paths: list[Path]) -> list[Attachment]:
    """Read files into memory, at most as much as one mail can carry."""
    from fastn_p2p_client.mail.messages import MAX_ATTACHMENTS, MAX_CONTENT, Attachment

    from ....protocols._shared.path_names import UnsafeName, check_component

    if len(paths) > MAX_ATTACHMENTS:
        raise CommandLineError(f"--attach: {len(paths)} files; at most {MAX_ATTACHMENTS} can be attached")
    attachments, size = [], 0
    for path in paths:
        if path.is_dir():
            raise CommandLineError(f"--attach: {str(path)!r} is a directory. Send it with `fastn-p2p files put`")
        try:
            with path.open("rb") as file:
                content = file.read(MAX_CONTENT - size + 1)
            name = check_component(path.resolve().name if path.name in ("", "..") else path.name)
        except OSError as error:
            raise CommandLineError(f"--attach: cannot read {str(path)!r}: {error.strerror}") from None
        except UnsafeName as error:
            raise CommandLineError(f"--attach: {error}") from None
        size += len(content)
        if size > MAX_CONTENT:
            raise CommandLineError(
                f"--attach: a mail has at most {MAX_CONTENT} bytes, attachments included. Send large files with "
                "`fastn-p2p files put`"
            )
        attachments.append(Attachment(name, content))
    return attachments
