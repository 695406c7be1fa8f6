from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, MailboxOption, MailJsonOption, OwnerOption
from ....console.output import put_json, table, write_message
from ....console.parameters import Option

if TYPE_CHECKING:
    from fastn_p2p_client.mail.client import MailClient
    from fastn_p2p_client.mail.messages import MailSummary


def run(
    unread: Annotated[bool, Option("--unread", help="Only mails that are not read yet.")] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: MailJsonOption = False,
    home: HomeOption = None,
) -> None:
    """List received mails, the oldest first.

    Columns: number, "new" or "-", sender, time received (UTC), bytes, attachments and subject; separated by tabs when
    piped.
    """
    from ....protocols.mail.cli import time_text, with_mail

    async def list_all(mail: MailClient) -> tuple[list[MailSummary], int]:
        found: list[MailSummary] = []
        while True:
            page = await mail.list(after=found[-1].number if found else 0, unread=unread)
            found += page.mails
            if not page.more:
                return found, page.bounced

    mails, bounced = with_mail(home, identity, instance, list_all)
    if json:
        put_json(*mails)
    else:
        table(
            ("N", "", "FROM", "RECEIVED", "SIZE", "FILES", "SUBJECT"),
            [
                (
                    str(each.number),
                    "-" if each.read else "new",
                    each.name or each.sender,
                    time_text(each.received),
                    str(each.size),
                    str(each.attachments),
                    each.subject,
                )
                for each in mails
            ],
        )
        if not mails:
            write_message("No new mail." if unread else "No mail.")
    if bounced:
        write_message(f"{bounced} of your mails could not be delivered. List them: fastn-p2p mail outbox")
