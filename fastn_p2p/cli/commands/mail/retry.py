from __future__ import annotations

from typing import Annotated

import typer

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption
from ....console.output import write_message
from ....protocols.mail.options import (
    MailboxOption,
    OwnerOption,
)


def run(
    numbers: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[N...]", min=1, help="Of the outbox; without any, all that is there.", show_default=False
        ),
    ] = None,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Try at once to deliver what waits, and again what has bounced.

    A mail that had arrived after all is recognised there, and does not appear twice.
    """
    from fastn_p2p_client.errors import ApplicationError

    from ....protocols.mail.cli import (
        report_error,
        with_mail,
    )

    chosen = sorted(set(numbers or []))
    try:
        count = with_mail(home, identity, instance, lambda mail: mail.retry(*chosen))
    except ApplicationError as error:
        raise typer.Exit(report_error(error)) from None
    write_message(f"{count} tried again")
    if count < len(chosen):
        write_message(f"fastn-p2p: {len(chosen) - count} of them do not wait, and have not come back")
        raise typer.Exit(ExitCode.NOT_FOUND)
