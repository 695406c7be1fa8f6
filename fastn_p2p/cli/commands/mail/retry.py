from __future__ import annotations

from typing import Annotated

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption, MailboxOption, OwnerOption
from ....console.output import write_message
from ....console.parameters import Argument


def run(
    numbers: Annotated[
        list[int] | None,
        Argument(metavar="[N...]", min=1, help="Numbers in the outbox; default: all.", show_default=False),
    ] = None,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Deliver waiting mails now, and send bounced ones again.

    The recipient recognises a mail that had arrived after all, so that it does not appear twice.
    """
    from fastn_p2p_client.errors import ApplicationError

    from ....protocols.mail.cli import report_error, with_mail

    chosen = sorted(set(numbers or []))
    try:
        count = with_mail(home, identity, instance, lambda mail: mail.retry(*chosen))
    except ApplicationError as error:
        raise SystemExit(report_error(error)) from None
    write_message(f"Retrying {count} {'mail' if count == 1 else 'mails'}.")
    if count < len(chosen):
        write_message(f"fastn-p2p: {len(chosen) - count} of these numbers neither wait nor have bounced")
        raise SystemExit(ExitCode.NOT_FOUND)
