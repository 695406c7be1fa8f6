from __future__ import annotations

from typing import Annotated

import typer

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption
from ....console.output import write_message
from ....protocols.mail.options import (
    MailboxOption,
    NumbersArgument,
    OwnerOption,
)


def run(
    numbers: NumbersArgument,
    outbox: Annotated[
        bool,
        typer.Option(
            "--outbox", help="Of the outbox. What waits is not sent any more, unless it is on its way this moment."
        ),
    ] = False,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Delete mails."""
    from fastn_p2p_client.errors import ApplicationError

    from ....protocols.mail.cli import (
        report_error,
        with_mail,
    )

    try:
        count = with_mail(
            home, identity, instance, lambda mail: mail.withdraw(*numbers) if outbox else mail.delete(*numbers)
        )
    except ApplicationError as error:
        raise typer.Exit(report_error(error)) from None
    write_message(f"{count} deleted")
    if count < len(set(numbers)):
        write_message(f"fastn-p2p: {len(set(numbers)) - count} of them are not there")
        raise typer.Exit(ExitCode.NOT_FOUND)
