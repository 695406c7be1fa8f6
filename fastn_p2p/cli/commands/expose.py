from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from ...console.exit_codes import CommandFailed, CommandLineError, ExitCode
from ...console.options import HomeOption, JsonOption, OwnerOption
from ...console.output import put_json, write_message, write_problem
from ...console.parameters import Argument, Option

if TYPE_CHECKING:
    from ...protocols._shared.service_address import ServiceAddress

_PROTOCOL: Final = "Web"
_CONNECT_TIMEOUT: Final = 2.0
"""Seconds for the service to accept a connection. It is a service of this machine or near it."""


def run(
    service: Annotated[
        str,
        Argument(
            metavar="PORT|URL|SOCKET",
            help="A port of 127.0.0.1, http://HOST:PORT, HOST:PORT, or the path of a Unix socket.",
        ),
    ],
    name: Annotated[str, Option("--name", metavar="NAME", help="Name under which peers open it.")] = "web",
    identity: OwnerOption = None,
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="PEER|group:NAME|peers|everyone",
            help="Caller that may use it: a peer (petname, ID52, ticket, fastn-p2p:// URI), a group, `peers` (the "
            "address book) or `everyone`. Can be repeated. By default `peers`.",
        ),
    ] = None,
    host: Annotated[
        str,
        Option(
            "--host", metavar="HOST", help="Host header for a service that accepts only its own.", show_default=False
        ),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Expose a local HTTP service to peers.

    Peers open it with `fastn-p2p open`. Each request carries the verified caller: Fastn-Peer and Fastn-Peer-Name. The
    service stays exposed, also over restarts, until the protocol Web is removed. `fastn-p2p access` lists who may use
    it.
    """
    from ...protocols._shared.service_address import InvalidAddress, parse_service

    try:
        address = parse_service(service)
    except InvalidAddress as error:
        raise CommandLineError(str(error)) from None

    target = str(address)

    import asyncio

    from fastn_p2p_client.client import Client
    from fastn_p2p_client.errors import BindingExists
    from fastn_p2p_client.ipc.messages import AddProtocol
    from fastn_p2p_client.permissions import Permissions

    from ...console.identity_restart import report_restart
    from ...console.json_values import to_json

    config = to_json({"target": target, **({"host": host} if host else {})})
    granted = Permissions(connect=[target]).lines()  # the argument names it: that is the owner's consent

    async def add() -> None:
        async with Client(home, program="fastn-p2p expose") as client:
            owner, _ = await client.resolve_identity(identity)
            remove = f"fastn-p2p remove-protocol {owner} --protocol {_PROTOCOL} --instance {name}"
            with report_restart(home, owner):
                try:
                    await client.control(
                        AddProtocol(owner, _PROTOCOL, name, tuple(allow or ()), granted=granted), config, timeout=60
                    )
                except BindingExists as error:
                    raise CommandFailed(
                        f"{owner} exposes a service as {name} already. Choose another --name, or end that first: "
                        f"{remove}",
                        ExitCode.EXISTS,
                        error.code,
                        **error.fields(),
                    ) from None
                await _warn_without_service(address)
                write_message(f"{target} is exposed to {', '.join(allow or ['peers'])} as {name} of {owner}.")
                write_message(f"Peers open it: fastn-p2p open PEER{'' if name == 'web' else f' {name}'}")
                write_message(f"It stays until: {remove}")
            if json:
                put_json({"identity": owner, "protocol": _PROTOCOL, "instance": name, "target": target})

    asyncio.run(add())


async def _warn_without_service(address: ServiceAddress) -> None:
    """Warn if nothing listens at the address: the service may be started later."""
    import asyncio

    from ...protocols._shared.sockets import open_connection

    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            (await open_connection(address)).close()
    except OSError as error:  # also TimeoutError, which has no strerror
        reason = error.strerror or "it does not accept connections"
        write_problem(f"nothing answers at {address} yet ({reason}). Peers see an error until the service is started")
