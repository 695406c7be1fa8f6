"""Address of the metrics: a port on loopback, or a Unix socket."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from fastn_p2p_client.limits import UNIX_PATH_MAX

_UNIX: Final = "unix:"


class MetricsAddress(NamedTuple):
    """Address at which metrics are served.

    Attributes:
        host, port: IP address of loopback and TCP port; empty and 0 for a Unix socket.
        path: absolute path of the Unix socket; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""


def parse_metrics_address(text: str) -> MetricsAddress:
    """Return the address that a text names.

    Raises:
        ValueError: it names none. The message says why.
    """
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or "\0" in path:
            raise ValueError("the path of a Unix socket begins with /")
        if len(path.encode()) > UNIX_PATH_MAX:
            raise ValueError(f"the path of a Unix socket has at most {UNIX_PATH_MAX} bytes")
        return MetricsAddress(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError("it has no port from 1 to 65535")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is no IP address") from None
    if not address.is_loopback:
        raise ValueError("others could read it: metrics are served on loopback only. A reverse proxy may pass them on")
    return MetricsAddress(str(address), int(port))
