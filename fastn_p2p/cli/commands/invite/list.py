from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_message
from ....console.parameters import Argument

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import InvitationInfo


def run(
    identity: Annotated[
        str,
        Argument(metavar="[IDENTITY]", help="Name of the identity.", complete="identity"),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List the invitations of this daemon, the newest first.

    Prints id, identity, bindings, state, uses, end, and the bearers that were let in. The states are open, used-up,
    expired and revoked. A bearer in brackets has lost its permission.
    """

    from ....console.control_request import with_daemon
    from ....console.formatting import utc_minute

    invitations = with_daemon(home, lambda client: client.invitations.list(identity))
    if json:
        put_json(invitations)
        return
    table(
        ("ID", "IDENTITY", "FOR", "STATE", "USED", "UNTIL", "LET IN"),
        [
            (
                each.id,
                each.identity,
                ",".join(each.bindings),
                each.state,
                f"{len(each.bearers)}/{each.uses}",
                utc_minute(each.expires_ms / 1000),
                _bearers(each),
            )
            for each in invitations
        ],
    )
    if not invitations:
        write_message("There are no invitations. Make one: fastn-p2p invite --for PROTOCOL")


def _bearers(invitation: InvitationInfo) -> str:
    names = [(each.name or each.id52, each.removed) for each in invitation.bearers]
    return ", ".join(f"({name})" if removed else name for name, removed in names) or "-"
