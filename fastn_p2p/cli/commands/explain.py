from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import AsOption, HomeOption, InstanceArgument, JsonOption, PeerArgument, call_target
from ...console.output import put_json, write_result
from ...console.parameters import Argument, Option


def run(
    peer: PeerArgument,
    protocol: Annotated[
        str, Argument(metavar="[PROTOCOL]", help="Protocol whose access is checked.", show_default=False)
    ] = "",
    instance: InstanceArgument = "default",
    identity: AsOption = None,
    timeout: Annotated[
        float, Option("--timeout", metavar="SECONDS", help="Timeout for the sources and for connecting.")
    ] = 10.0,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show each step from the name of a peer to the process that serves it.

    Shows the key behind the name, the sources that know its addresses and how old their records are, each attempt to
    connect, the path, the proof of the identity, whether the peer lets you use PROTOCOL, and what serves it. Also works
    if a call does not: it then ends with what is wrong and what to do, and exit code 4, or 5 if access is denied.
    """
    from fastn_p2p_client.ipc.messages import ExplainPeer

    from ...console.control_request import request_daemon
    from ..trace_text import exit_code, lines_of

    peer, protocol, instance = call_target(peer, protocol, instance)
    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    message = ExplainPeer(identity or "", peer, protocol, instance, int(timeout * 1000))
    trace = request_daemon(home, message, timeout=3 * timeout + 10.0).trace
    if json:
        put_json(trace)
    else:
        write_result("\n".join(lines_of(trace)))
    raise SystemExit(exit_code(trace))
