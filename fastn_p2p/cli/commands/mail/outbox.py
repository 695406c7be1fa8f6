from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ....console.options import HomeOption
from ....console.output import (
    put_json,
    table,
    write_message,
)
from ....protocols.mail.options import (
    LinesOption,
    MailboxOption,
    OwnerOption,
)

if TYPE_CHECKING:
    from fastn_p2p_client.mail.client import MailClient
    from fastn_p2p_client.mail.messages import OutboxEntry, OutboxState


def run(
    everything: Annotated[bool, typer.Option("--all", help="Also what was delivered.")] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: LinesOption = False,
    home: HomeOption = None,
) -> None:
    """List what was sent and has not arrived, the oldest first.

    Number, state, to whom, since when (UTC), bytes, subject, and why it has come back or has to wait; with tabs between
    them when piped. What is `waiting` is tried again by itself; for what has `bounced` there is `fastn-p2p mail retry`.
    """
    from fastn_p2p_client.errors import ApplicationError

    from ....protocols.mail.cli import (
        petnames,
        report_error,
        time_text,
        with_mail,
    )

    states: tuple[OutboxState, ...] = ("waiting", "bounced", "delivered") if everything else ("waiting", "bounced")

    async def all_of(mail: MailClient) -> list[OutboxEntry]:
        found: list[OutboxEntry] = []
        while True:
            page = await mail.outbox(states, after=found[-1].number if found else 0)
            found += page.entries
            if not page.more:
                return found

    try:
        entries = with_mail(home, identity, instance, all_of)
    except ApplicationError as error:
        raise typer.Exit(report_error(error)) from None
    if json:
        put_json(*entries)
        return
    names = petnames(home) if entries else {}
    table(
        ("N", "STATE", "TO", "SINCE", "SIZE", "SUBJECT", "REASON"),
        [
            (
                str(each.number),
                each.state,
                names.get(each.to, each.to) + ("" if each.instance == "default" else f"/{each.instance}"),
                time_text(each.changed),
                str(each.size),
                each.subject,
                each.reason or "-",
            )
            for each in entries
        ],
    )
    if not entries:
        write_message("nothing was sent" if everything else "nothing waits, and nothing has come back")
