"""Order of an endpoint's addresses: the most useful to peer daemons first, because a full record drops the last."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

_PROBES: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses of documentation (RFC 5737, RFC 3849). A datagram socket finds its route to them; nothing is sent."""


def order_addresses(addresses: Iterable[str], default_hosts: frozenset[str] | None = None) -> list[str]:
    """Return the addresses (``ip:port``), the most useful first.

    First public ones, then those that this machine sends from by default, other private ones, loopback, link-local.
    A machine with containers has many private addresses that no other machine reaches.

    Args:
        default_hosts: addresses that this machine sends from by default; None to ask the kernel.
    """
    preferred = find_default_hosts() if default_hosts is None else default_hosts

    def rank(address: str) -> tuple[int, int, str]:
        host = address.rpartition(":")[0].strip("[]")
        parsed = ipaddress.ip_address(host.partition("%")[0])
        if parsed.is_link_local:
            usefulness = 4
        elif parsed.is_loopback:
            usefulness = 3
        elif parsed.is_global:
            usefulness = 0
        else:
            usefulness = 1 if host in preferred else 2
        return usefulness, parsed.version, address

    return sorted(addresses, key=rank)


def find_default_hosts() -> frozenset[str]:
    """Return the addresses that this machine sends from to other networks; empty without a route."""
    found = set()
    for family, target in _PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    return frozenset(found)


def is_public(address: str) -> bool:
    """Return whether an address (``ip:port``) is reached from the internet, unless a firewall forbids it."""
    return _host_of(address).is_global


def is_loopback(address: str) -> bool:
    """Return whether an address (``ip:port``) is reached from this machine only."""
    return _host_of(address).is_loopback


def _host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]").partition("%")[0])
