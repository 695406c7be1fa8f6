from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import (
    AddedOption,
    GrantOption,
    HomeOption,
    IdentityArgument,
    InstanceOption,
    JsonOption,
    ProtocolOption,
)
from ...console.output import put_json, write_message, write_problem
from ...console.parameters import Option

if TYPE_CHECKING:
    from fastn_p2p_client.nats_client.nats_server import NatsServer


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    instance: InstanceOption = "default",
    config: Annotated[str, Option(metavar="JSON|@FILE", help="Config of the instance.", show_default=False)] = "{}",
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="PEER|group:NAME|peers|everyone",
            help="Caller that may use it: a peer (petname, ID52, ticket, fastn-p2p:// URI), a group, `peers` (the "
            "address book) or `everyone`. Can be repeated. Without it the protocol decides.",
        ),
    ] = None,
    program: Annotated[
        bool,
        Option(
            "--program", help="A program of yours serves it (serve_all). The daemon keeps its config and workspace."
        ),
    ] = False,
    workers: Annotated[
        str,
        Option(
            "--workers",
            metavar="URL",
            help="Workers on other machines serve it (serve_workers), through this NATS server: nats://HOST:PORT or "
            "tls://HOST:PORT.",
            show_default=False,
        ),
    ] = "",
    credentials: Annotated[
        str,
        Option(
            "--workers-credentials",
            metavar="FILE",
            help="For --workers: credentials in a file that only you can read.",
            show_default=False,
        ),
    ] = "",
    ca: Annotated[
        str,
        Option(
            "--workers-ca",
            metavar="FILE",
            help="For --workers: certificates with which that of the server is checked.",
            show_default=False,
        ),
    ] = "",
    address: Annotated[
        str,
        Option(
            "--workers-address",
            metavar="HOST:PORT",
            help="For --workers: where they reach this daemon for sessions, if that is not `worker.listen`.",
            show_default=False,
        ),
    ] = "",
    claims: Annotated[
        str,
        Option(
            "--claims",
            metavar="URL",
            help="Claim calls with --retry in this store: postgresql://USER@HOST/DATABASE or nats://HOST:PORT/BUCKET. "
            "Then replicas with the same store execute none twice.",
            show_default=False,
        ),
    ] = "",
    workers_claims: Annotated[
        str,
        Option(
            "--workers-claims",
            metavar="BUCKET|URL",
            help="For --workers: claim calls with --retry in this key-value bucket (JetStream) of the NATS server, or "
            "in another store (postgresql://USER@HOST/DATABASE). Then replicas execute none twice.",
            show_default=False,
        ),
    ] = "",
    grant: AddedOption = None,
    yes: GrantOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Add a protocol to an identity.

    Use --instance to add several instances of one protocol. A protocol that is added with --program need not be
    installed where the daemon runs, nor one with --workers. A protocol that needs more than its own directory says so,
    and asks.
    """
    from msgspec.structs import asdict

    from ...console.claims_option import check_claims_option
    from ...console.confirmation import permission_lines, show_permissions, with_permissions
    from ...console.control_request import with_daemon
    from ...console.identity_restart import report_restart
    from ...console.json_values import json_argument, parse_json, to_json

    server = _server(workers, credentials, ca, address, workers_claims)
    if claims and (program or server is not None):
        instead = "handle_requests(..., claims=URL) in the program" if program else "--workers-claims"
        raise CommandLineError(f"--claims is for protocols that the daemon hosts. Use {instead}")
    check_claims_option(claims)
    if server is not None and (program or config != "{}"):
        raise CommandLineError(
            f"--workers and {'--program' if program else '--config'} exclude each other: "
            + ("either a program of this machine serves it, or workers do" if program else "workers get no config")
        )
    if server is None:
        payload = json_argument(config, "--config")
        parse_json(payload, "--config")
    else:
        settings = {**asdict(server), "address": address, "claims": workers_claims}
        payload = to_json({key: value for key, value in settings.items() if value})
    access, added = tuple(allow or ()), permission_lines(grant)
    with report_restart(home, identity):
        with_permissions(
            lambda granted: with_daemon(
                home,
                lambda client: client.protocols.add(
                    identity,
                    protocol,
                    instance,
                    config=payload,
                    allow=access,
                    program=program,
                    granted=granted,
                    added=added,
                    workers=server is not None,
                    claims=claims,
                ),
            ),
            yes=yes,
        )
        served = ", served by a program" if program else ", served by workers" if server is not None else ""
        write_message(f"Added {protocol} ({instance}) to {identity}{served}.")
    if server is not None:
        _warn_without_server(server)
    show_permissions(home, identity, protocol, instance)
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance})


def _server(url: str, credentials: str, ca: str, address: str, claims: str) -> NatsServer | None:
    """Return the server of the workers; None without ``--workers``. Raises CommandLineError."""
    if not url:
        options = {
            "--workers-credentials": credentials,
            "--workers-ca": ca,
            "--workers-address": address,
            "--workers-claims": claims,
        }
        for option, value in options.items():
            if value:
                raise CommandLineError(f"{option} goes with --workers URL")
        return None

    from pathlib import Path

    from fastn_p2p_client.nats_client.nats_server import InvalidServer, NatsServer

    paths = [str(Path(each).expanduser().absolute()) if each else "" for each in (credentials, ca)]
    server = NatsServer(url, *paths)
    try:
        server.check()
    except InvalidServer as error:
        raise CommandLineError(f"--workers: {error}") from None
    if address:
        _check_address(address)
    if claims:
        _check_claims(claims, server)
    return server


def _check_claims(claims: str, server: NatsServer) -> None:
    """Raise CommandLineError if this is no store of claims, or its files cannot be used."""
    from ...protocols.workers.protocol import claims_of_workers

    try:
        claims_of_workers(claims, server).check("fastn-p2p")
    except ValueError as error:
        raise CommandLineError(f"--workers-claims: {error}") from None


def _check_address(address: str) -> None:
    """Raise CommandLineError if it is no ``HOST:PORT``."""
    from fastn_p2p_client.worker_token import parse_address

    try:
        parse_address(address)
    except ValueError as error:
        raise CommandLineError(f"--workers-address: {error}") from None


def _warn_without_server(server: NatsServer) -> None:
    """Warn if the server cannot be used yet: it may be started later."""
    import asyncio

    from fastn_p2p_client.nats_client.nats_connection import connect
    from fastn_p2p_client.nats_client.nats_server import NatsUnusable

    async def probe() -> None:
        await (await connect(server, "fastn-p2p add-protocol")).close()

    try:
        asyncio.run(probe())
    except NatsUnusable as error:
        write_problem(f"{error}. Callers see an error until it can be used")
