from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, JsonOption, to_contact
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Argument, Option


def run(
    peer: Annotated[
        str,
        Argument(
            metavar="ID",
            help="ID52, ticket, fastn-p2p:// URI, or the first characters of an ID52 that `fastn-p2p peer pending` "
            "shows.",
            callback=to_contact,
        ),
    ],
    name: Annotated[str, Option("--name", metavar="NAME", help="Petname of the peer.", show_default=False)] = "",
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="BINDING",
            help="Binding that it may use as well: PROTOCOL, IDENTITY/PROTOCOL or IDENTITY/PROTOCOL/INSTANCE. "
            "Can be repeated.",
        ),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Accept a stranger that was refused, and print its ID52.

    Adds it to the address book, and unblocks it. All bindings that allow `peers` admit it then. Use --allow for those
    that have an access list of their own.
    """
    from ....console.control_request import with_daemon

    bindings = tuple(_binding(home, each) for each in allow or ())
    before = with_daemon(home, lambda client: client.peers.pending())
    accepted = with_daemon(home, lambda client: client.peers.accept(peer, name, allow=bindings))
    if json:
        put_json(accepted)
        return
    write_message(f"Accepted {accepted.name}: it is in the address book. Its ID52:")
    write_result(accepted.id52)
    wanted = {
        (each.identity, each.protocol, each.instance)
        for pending in before
        if pending.id52 == accepted.id52
        for each in pending.wanted
    }
    for binding in with_daemon(home, lambda client: client.protocols.access(peer=accepted.name)):
        key = (binding.identity, binding.protocol, binding.instance)
        if key in wanted and binding.admits[0].problem:
            write_message(
                f"{'/'.join(key)}, which it wanted, still refuses it. Allow it: fastn-p2p peer accept "
                f"{accepted.id52} --name {accepted.name} --allow {'/'.join(key)}"
            )


def _binding(home: Path | None, text: str) -> str:
    """Return ``IDENTITY/PROTOCOL/INSTANCE``.

    Raises:
        CommandLineError: the text is no binding, or the identity is missing and there are several.
    """
    from ....console.control_request import with_daemon

    parts = text.split("/")
    if not all(parts) or len(parts) > 3:
        raise CommandLineError(f"--allow: {text!r} is no binding. Give PROTOCOL, IDENTITY/PROTOCOL, or all three parts")
    if len(parts) == 1:
        identities = [each.name for each in with_daemon(home, lambda client: client.identities.list())]
        if len(identities) != 1:
            raise CommandLineError(f"--allow: name the identity, because there is not exactly one: IDENTITY/{text}")
        parts = [identities[0], *parts]
    return "/".join(parts if len(parts) == 3 else [*parts, "default"])
