"""Addresses of services as text: ``HOST:PORT`` or ``unix:PATH``."""

from __future__ import annotations

import os
import re
import socket
from typing import Final, NamedTuple

from fastn_p2p_client.limits import UNIX_PATH_MAX

_UNIX: Final = "unix:"


class InvalidAddress(ValueError):
    """The text is not an address. The message says how to write one."""


class ServiceAddress(NamedTuple):
    """A host (a name or an IP address) with a port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, any_port: bool = False) -> ServiceAddress:
    """Parse ``127.0.0.1:80``, ``[::1]:80``, ``localhost:80`` or ``unix:/run/web.sock``.

    Args:
        any_port: accept port 0, for which the kernel chooses a port.

    Raises:
        InvalidAddress: the text is not an address.
    """
    if text.startswith(_UNIX):
        return _unix(text.removeprefix(_UNIX))
    if "/" in text:
        raise InvalidAddress(f"{text!r} is not an address. Write HOST:PORT, or {_UNIX}PATH for a Unix socket")
    match = re.fullmatch(r"(?:\[([^][]*)\]|([^][]*)):([^:]*)", text)
    if match is None:
        if text.isascii() and text.isdigit():
            raise InvalidAddress(f"{text!r} has no host. Write 127.0.0.1:{text}")
        raise InvalidAddress(f"{text!r} has no port. Write HOST:PORT, for example 127.0.0.1:8000")
    bracketed, bare, digits = match.groups()
    if bare is not None and ":" in bare:
        raise InvalidAddress(f"{text!r} is not an address. Write an IPv6 address in brackets, as in [::1]:80")
    host = bracketed or bare or ""
    if not host:
        raise InvalidAddress(f"{text!r} has no host. Write 127.0.0.1:{digits}")
    if not host.isprintable() or " " in host or len(host) > 255:
        raise InvalidAddress(f"{host[:64]!r} is not a host")
    if bracketed and not _is_ipv6(bracketed):
        raise InvalidAddress(f"[{bracketed}] is not an IPv6 address")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else -1
    if not (0 if any_port else 1) <= port <= 65535:
        raise InvalidAddress(f"{digits!r} is not a port. Write a number from {0 if any_port else 1} to 65535")
    return ServiceAddress(host, port)


def parse_service(text: str) -> ServiceAddress:
    """Parse the address of an HTTP service: a port of 127.0.0.1, a URL, the path of a Unix socket, or an address.

    Raises:
        InvalidAddress: the text is none of these, or a URL of more than host and port.
    """
    if text.isascii() and text.isdigit():
        return parse_address(f"127.0.0.1:{text}")
    if text.startswith(("/", "./", "../", "~/")):
        return _unix(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - the file need not exist
    if "://" not in text:
        return parse_address(text)
    scheme, _, rest = text.partition("://")
    if scheme.lower() != "http":
        raise InvalidAddress(f"{text!r} is not served over plain HTTP. Write http://HOST:PORT")
    host, _, path = rest.partition("/")
    if path or "?" in host or "#" in host or "@" in host:
        raise InvalidAddress(
            f"{text!r} has more than a host and a port. All paths are exposed: write http://{host or 'HOST'}"
        )
    return parse_address(host if re.search(r":\d+$", host) else f"{host}:80")


def _unix(path: str) -> ServiceAddress:
    if not path or "\0" in path:
        raise InvalidAddress(f"{_UNIX} needs the path of a socket")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise InvalidAddress(f"the path of a Unix socket has at most {UNIX_PATH_MAX} bytes: {path!r}")
    return ServiceAddress("", 0, path)


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        return False
    return True
