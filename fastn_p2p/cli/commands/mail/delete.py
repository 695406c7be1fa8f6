from __future__ import annotations

from typing import Annotated

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption, MailboxOption, MailNumbersArgument, OwnerOption
from ....console.output import write_message
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
    home: HomeOption = None,
) -> None:
    """Delete mails."""
    from fastn_p2p_client.errors import ApplicationError

    from ....protocols.mail.cli import report_error, with_mail

    try:
        count = with_mail(
            home, identity, instance, lambda mail: mail.withdraw(*numbers) if outbox else mail.delete(*numbers)
        )
    except ApplicationError as error:
        raise SystemExit(report_error(error)) from None
    write_message(f"Deleted {count} {'mail' if count == 1 else 'mails'}.")
    if count < len(set(numbers)):
        write_message(f"fastn-p2p: {len(set(numbers)) - count} of these numbers do not exist")
        raise SystemExit(ExitCode.NOT_FOUND)
