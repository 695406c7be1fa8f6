from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, IdentityArgument, InstanceOption, JsonOption, ProtocolOption, YesOption
from ...console.output import put_json, write_message
from ...console.parameters import Option


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    instance: InstanceOption = "default",
    yes: YesOption = False,
    keep_data: Annotated[
        bool, Option("--keep-data", help="Keep its files. The instance has them again when it is added again.")
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove a protocol from an identity.

    Deletes the files of this instance. Asks for confirmation if there are any.
    """
    from fastn_p2p_client.errors import WorkspaceNotEmpty

    from ...console.confirmation import can_confirm, confirm_deletion
    from ...console.control_request import with_daemon
    from ...console.identity_restart import report_restart

    def remove(*, keep_data: bool = False, if_empty: bool = False) -> None:
        with_daemon(
            home,
            lambda client: client.protocols.remove(
                identity, protocol, instance, keep_data=keep_data, if_empty=if_empty
            ),
        )

    with report_restart(home, identity):
        try:
            remove(keep_data=keep_data, if_empty=not yes)
        except WorkspaceNotEmpty as error:
            if not can_confirm():
                raise
            confirm_deletion(f"{protocol} ({instance}) of {identity} holds {error.holds}. This cannot be undone.")
            remove()
        if keep_data:
            write_message(
                f"Removed {protocol} ({instance}) from {identity}. Its files are kept. To delete them, repeat the "
                "command without --keep-data."
            )
        else:
            write_message(f"Removed {protocol} ({instance}) from {identity}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance})
