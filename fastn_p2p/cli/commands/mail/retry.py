from __future__ import annotations

from typing import Annotated

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption, JsonOption, MailboxOption, OwnerOption
from ....console.output import put_json, write_message, write_problem
from ....console.parameters import Argument


def run(
    numbers: Annotated[
        list[int] | None,
        Argument(metavar="[N...]", min=1, help="Numbers in the outbox; default: all.", show_default=False),
    ] = None,
    instance: MailboxOption = "default",
    identity: OwnerOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Deliver waiting mails now, and send bounced ones again.

    The recipient recognises a mail that had arrived after all, so that it does not appear twice.
    """
    from ....protocols.mail.cli import with_mail

    chosen = sorted(set(numbers or []))
    count = with_mail(home, identity, instance, lambda mail: mail.retry(*chosen))
    write_message(f"Retrying {count} {'mail' if count == 1 else 'mails'}.")
    unknown = len(chosen) - count
    if json:
        put_json({"retrying": count, "unknown": unknown})
    if unknown:
        write_problem(f"{unknown} of these numbers neither wait nor have bounced")
        raise SystemExit(ExitCode.NOT_FOUND)
