from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import InvitationInfo


def run(
    ids: Annotated[
        list[str],
        Argument(metavar="ID...", help="Ids of the invitations, or their first 4 characters or more."),
    ],
    access: Annotated[
        bool,
        Option("--access", help="Also take the permission back from those who were let in."),
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Revoke invitations: they let in nobody else.

    Peers that have redeemed it keep their permission, unless --access is given. Then their sessions end, too.
    """
    from ....console.control_request import with_daemon

    def revoke(id: str) -> InvitationInfo:
        return with_daemon(home, lambda client: client.invitations.revoke(id, access=access))

    for revoked in map(revoke, ids):
        if json:
            put_json(revoked)
        write_message(f"Revoked invitation {revoked.id}: it lets in nobody else.")
        let_in = [each.name or each.id52 for each in revoked.bearers if not each.removed]
        if let_in:
            write_message(
                f"It has let in {', '.join(let_in)}, with permission until you run: "
                f"fastn-p2p invite revoke {revoked.id} --access"
            )
