from __future__ import annotations

from typing import Annotated

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption, JsonOption, MailboxOption, MailNumbersArgument, OwnerOption
from ....console.output import put_json, write_message, write_problem
from ....console.parameters import Option


def run(
    numbers: MailNumbersArgument,
    outbox: Annotated[
        bool,
        Option(
            "--outbox", help="Delete from the outbox. A waiting mail is no longer sent, unless it is being sent now."
        ),
    ] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Delete mails."""
    from ....protocols.mail.cli import with_mail

    count = with_mail(
        home, identity, instance, lambda mail: mail.withdraw(*numbers) if outbox else mail.delete(*numbers)
    )
    write_message(f"Deleted {count} {'mail' if count == 1 else 'mails'}.")
    unknown = len(set(numbers)) - count
    if json:
        put_json({"deleted": count, "unknown": unknown})
    if unknown:
        write_problem(f"{unknown} of these numbers do not exist")
        raise SystemExit(ExitCode.NOT_FOUND)
