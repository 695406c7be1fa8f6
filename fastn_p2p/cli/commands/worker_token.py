from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, IdentityArgument, InstanceOption, JsonOption, ProtocolOption
from ...console.output import put_json, write_message, write_result
from ...console.parameters import Option


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    instance: InstanceOption = "default",
    revoke: Annotated[
        bool, Option("--revoke", help="Revoke all tokens of this instance, and disconnect its workers.")
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print a token with which a program on another machine serves a protocol.

    The protocol was added with --program, and the daemon listens for workers: see the setting worker.listen. The
    program passes the file with the token to `listen_remotely`. A token is a secret, and is valid until it is revoked.
    """
    from ...console.control_request import with_daemon

    names = {"identity": identity, "protocol": protocol, "instance": instance}
    if revoke:
        count = with_daemon(home, lambda client: client.protocols.revoke_worker_tokens(identity, protocol, instance))
        write_message(
            f"Revoked {count} {'token' if count == 1 else 'tokens'} of {protocol} ({instance}) of {identity}."
        )
        if json:
            put_json({**names, "revoked": count})
        return
    token = with_daemon(home, lambda client: client.protocols.create_worker_token(identity, protocol, instance))
    if json:
        put_json({**names, "token": str(token)})
        return
    write_result(str(token))
    write_message(
        f"Whoever has this token serves {protocol} ({instance}) as {identity}. Keep it in a file with mode 600, and "
        "pass that to fastn_p2p_client.listen_remotely."
    )
