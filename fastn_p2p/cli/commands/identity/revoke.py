from __future__ import annotations

from typing import Annotated

import typer

from ....console.options import HomeOption, NameArgument, YesOption
from ....console.output import write_message


def run(
    name: NameArgument,
    successor: Annotated[
        str,
        typer.Option(metavar="ID52", help="Identity that takes its place: an ID52, or the name of another one here."),
    ] = "",
    yes: YesOption = False,
    home: HomeOption = None,
) -> None:
    """Revoke an identity whose key may be stolen.

    It goes offline for good. Peers that learn of it refuse it, and can accept the successor. This cannot be undone.
    """
    from ....console.confirmation import can_confirm, confirm_by_name
    from ....console.exit_codes import CommandLineError

    if not yes:
        if not can_confirm():
            raise CommandLineError(
                "cannot ask for confirmation without a terminal. Use --yes to revoke without confirmation"
            )
        confirm_by_name(
            f"This revokes {name!r} at every peer, {_words(successor)}. It cannot be undone, not even with its key.",
            name,
            "Nothing was revoked.",
        )

    from fastn_p2p_client.ipc.messages import RevokeIdentity

    from ....console.control_request import request_daemon

    identity = request_daemon(home, RevokeIdentity(name, successor)).identity
    write_message(f"Revoked {name}, {_words(identity.successor)}. It stays offline.")
    write_message("Keep this daemon running: it tells peers, and publishes the revocation every hour.")


def _words(successor: str) -> str:
    return f"with the successor {successor}" if successor else "without a successor"
