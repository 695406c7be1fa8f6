"""Address at which workers on other machines connect: ``HOST:PORT``."""

from __future__ import annotations

import ipaddress


def parse_worker_address(text: str) -> tuple[str, int]:
    """Return IP address and TCP port.

    Raises:
        ValueError: the text names none. The message says why.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError("it has no port from 1 to 65535")
    host = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise ValueError(f"{host!r} is no IP address of this machine") from None
