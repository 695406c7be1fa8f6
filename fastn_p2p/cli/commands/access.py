from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, JsonOption, to_contact
from ...console.output import put_json, table, write_message
from ...console.parameters import Argument, Option


def run(
    identity: Annotated[
        str | None,
        Argument(metavar="[IDENTITY]", help="Name of the identity.", complete="identity"),
    ] = None,
    peer: Annotated[
        str,
        Option(
            "--peer",
            metavar="PEER",
            help="Show only what this peer may do: petname, ID52, ticket, or fastn-p2p:// URI.",
            callback=to_contact,
        ),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show who may use which protocol, and why.

    Prints a line for each binding and caller: the binding, the caller, and the entry of the access list that admits it.
    Identities of this daemon may use all bindings that allow `peers`. Blocked peers may use nothing. A second table has
    what the code of a binding may use outside of its workspace.
    """
    from ...console.control_request import with_daemon

    bindings = with_daemon(home, lambda client: client.protocols.access(identity or "", peer))
    if json:
        put_json(bindings)
        return
    rows = []
    for each in bindings:
        binding = f"{each.identity}/{each.protocol}/{each.instance}"
        for entry in each.admits:
            who = f"{entry.who} ({entry.count})" if entry.who == "peers" and not peer else entry.who
            allowed = ("no" if entry.problem else "yes",) if peer else (who or "-",)
            rows.append((binding, *allowed, entry.problem or entry.why))
    table(("BINDING", "ALLOWED" if peer else "WHO", "WHY"), rows)
    used = [
        (f"{each.identity}/{each.protocol}/{each.instance}", line) for each in bindings for line in each.permissions
    ]
    if used and not peer:
        write_message("")
        table(("BINDING", "ITS CODE MAY"), used)
    if not rows:
        write_message("There are no bindings. Add one: fastn-p2p add-protocol IDENTITY --protocol PROTOCOL")
