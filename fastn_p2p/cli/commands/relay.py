from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from ...console.exit_codes import CommandLineError, ExitCode
from ...console.parameters import Option

_INSTALL = "fastn-p2p relay needs more packages. Install them: pip install 'fastn-p2p[relay]'"
_FILE = {"metavar": "FILE", "exists": True, "dir_okay": False, "readable": True}


def run(
    listen: Annotated[
        str,
        Option("--listen", metavar="HOST:PORT", help="Address of relay and directory. Host *: all addresses."),
    ] = "*:3340",
    directory_file: Annotated[
        Path | None,
        Option("--directory-file", metavar="FILE", help="Keep the directory in this SQLite file.", dir_okay=False),
    ] = None,
    tls_cert: Annotated[Path | None, Option("--tls-cert", help="Certificate chain, PEM. Serve HTTPS.", **_FILE)] = None,
    tls_key: Annotated[Path | None, Option("--tls-key", help="Secret key of the certificate, PEM.", **_FILE)] = None,
    qad_port: Annotated[
        int,
        Option("--qad-port", metavar="PORT", min=0, max=65535, help="UDP port of address discovery; needs TLS."),
    ] = 7842,
    allow: Annotated[
        Path | None,
        Option("--allow", help="Admit only the keys in this file: endpoint ids and ID52s.", **_FILE),
    ] = None,
    metrics: Annotated[
        str | None, Option("--metrics", metavar="HOST:PORT", help="Serve /metrics for Prometheus here.")
    ] = None,
    clients: Annotated[int, Option(metavar="NUMBER", min=1, help="Most connections.")] = 10_000,
    connections_per_address: Annotated[
        int, Option(metavar="NUMBER", min=1, help="Most connections of one address.")
    ] = 256,
    client_rate: Annotated[
        int, Option(metavar="KIB", min=0, help="KiB per second that one client may send. 0: no limit.")
    ] = 32 * 1024,
    address_rate: Annotated[int, Option(metavar="KIB", min=0, help="The same for all clients of one address.")] = 128
    * 1024,
    pending: Annotated[int, Option(metavar="KIB", min=128, help="KiB that may wait for one client.")] = 512,
    packets: Annotated[int, Option(metavar="NUMBER", min=1, help="Most packets in the directory.")] = 100_000,
    json: Annotated[bool, Option("--json", help="Print the addresses as JSON, one on each line.")] = False,
) -> None:
    """Run a relay, a directory and address discovery for daemons, until Ctrl-C or SIGTERM.

    SIGHUP reads the certificate and the access list again.
    """
    if (tls_cert is None) != (tls_key is None):
        raise CommandLineError("--tls-cert and --tls-key belong together. Give both, or none")
    try:
        from ...relay import relay_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fastn_p2p"):
            raise
        raise CommandLineError(f"{_INSTALL} ({error.name} is missing)") from None

    from ...relay.allowed_keys import InvalidAccessList
    from ...relay.config import RelayConfig
    from ...relay.relay_limits import RelayLimits
    from ...relay.tls_files import InvalidCertificate

    config = RelayConfig(
        listen=_address("--listen", listen),
        directory_file=directory_file,
        certificate=tls_cert,
        key=tls_key,
        discovery_port=qad_port,
        allow=allow,
        metrics=None if metrics is None else _address("--metrics", metrics),
        limits=RelayLimits(
            clients=clients,
            connections_per_address=connections_per_address,
            client_rate=client_rate * 1024,
            address_rate=address_rate * 1024,
            pending=pending * 1024,
            packets=packets,
        ),
    )
    try:
        relay_server.run(config, partial(_print_addresses, json=json))
    except relay_server.AddressUnusable as error:
        raise CommandLineError(str(error)) from None
    except InvalidAccessList as error:
        raise CommandLineError(f"--allow: {error}") from None
    except InvalidCertificate as error:
        raise CommandLineError(f"--tls-cert: {error}") from None
    raise SystemExit(ExitCode.OK)


def _address(option: str, text: str) -> Any:
    from ...protocols._shared.service_address import InvalidAddress, parse_address
    from ...relay.config import ListenAddress

    try:
        address = parse_address(text, any_port=True)
    except InvalidAddress as error:
        raise CommandLineError(f"{option}: {error}") from None
    if address.path:
        raise CommandLineError(f"{option}: {text!r} is a Unix socket. Write HOST:PORT")
    return ListenAddress(address.host, address.port)


def _print_addresses(server: Any, *, json: bool) -> None:
    from ...console.output import put_json, write_result

    for line in server.describe():
        if json:
            service, _, url = line.rpartition(" ")
            put_json({"service": service, "url": url})
        else:
            write_result(line)
