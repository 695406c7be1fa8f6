from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, MailboxOption, MailJsonOption, OwnerOption
from ....console.output import put_json, table, write_message
from ....console.parameters import Option

if TYPE_CHECKING:
    from fastn_p2p_client.mail.client import MailClient
    from fastn_p2p_client.mail.messages import OutboxEntry, OutboxState


def run(
    everything: Annotated[bool, Option("--all", help="Also list delivered mails.")] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: MailJsonOption = False,
    home: HomeOption = None,
) -> None:
    """List sent mails that were not delivered yet, the oldest first.

    Columns: number, state, recipient, time of the state (UTC), bytes, subject and reason; separated by tabs when piped.
    A `waiting` mail is retried by itself; a `bounced` mail is sent again by `fastn-p2p mail retry`.
    """
    from ....protocols.mail.cli import petnames, time_text, with_mail

    states: tuple[OutboxState, ...] = ("waiting", "bounced", "delivered") if everything else ("waiting", "bounced")

    async def list_all(mail: MailClient) -> list[OutboxEntry]:
        found: list[OutboxEntry] = []
        while True:
            page = await mail.outbox(states, after=found[-1].number if found else 0)
            found += page.entries
            if not page.more:
                return found

    entries = with_mail(home, identity, instance, list_all)
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
        write_message("No mail was sent." if everything else "No mail waits, and none has bounced.")
