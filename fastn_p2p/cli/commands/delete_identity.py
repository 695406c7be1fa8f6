from __future__ import annotations

from ...console.options import HomeOption, JsonOption, NameArgument, YesOption
from ...console.output import put_json, write_message


def run(name: NameArgument, yes: YesOption = False, json: JsonOption = False, home: HomeOption = None) -> None:
    """Delete an identity and everything it has.

    Deletes its key, its protocols and their files. This cannot be undone.
    """
    from ...console.confirmation import can_confirm, confirm_deletion
    from ...console.exit_codes import CommandLineError

    if not yes:
        if not can_confirm():
            raise CommandLineError(
                "cannot ask for confirmation without a terminal. Use --yes to delete without confirmation"
            )
        confirm_deletion(f"This deletes the key of {name!r}, its protocols and their files. It cannot be undone.")

    from ...console.control_request import with_daemon

    with_daemon(home, lambda client: client.identities.delete(name))
    write_message(f"Deleted {name}.")
    if json:
        put_json({"name": name})
