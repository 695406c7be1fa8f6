"""Network interfaces on which multicast works."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ..local_addresses import NETWORK_FILES, interface_flags, ipv6_addresses

_SIOCGIFINDEX: Final = 0x8933
_SIOCGIFADDR: Final = 0x8915
_UP: Final = 0x1
_LOOPBACK: Final = 0x8
_POINT_TO_POINT: Final = 0x10
_RUNNING: Final = 0x40
_MULTICAST: Final = 0x1000
_WANTED: Final = _UP | _RUNNING | _MULTICAST
_UNWANTED: Final = _LOOPBACK | _POINT_TO_POINT
"""Tunnels such as a VPN are no LAN: hosts behind them are others'. Nor are ports of a bridge: the bridge is."""

_SYSFS: Final = Path("/sys/class/net")
_MAX_LINKS: Final = 32
"""Links that are used at most. A host with many containers has an interface for each."""


class Link(NamedTuple):
    """Interface, in one family.

    Attributes:
        number: number of the interface.
        family: ``AF_INET`` or ``AF_INET6``.
        interface: its name.
        address: its first IPv4 address, or its link-local one: with another address it is in another network.
    """

    number: int
    family: int
    interface: str
    address: str


def find_links() -> frozenset[Link]:
    """Return the links of interfaces that are up, can do multicast, and have an address that can be used."""
    links: list[Link] = []
    ipv6 = {name: str(address) for name, address in ipv6_addresses() if address.is_link_local}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for number, name in sorted(_interfaces(probe)):
            request = struct.pack("16s24x", name.encode())
            with suppress(OSError):  # it has no IPv4 address
                raw = fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24]
                links.append(Link(number, socket.AF_INET, name, socket.inet_ntoa(raw)))
            if name in ipv6:
                links.append(Link(number, socket.AF_INET6, name, ipv6[name]))
    return frozenset(links[:_MAX_LINKS])


def _interfaces(probe: socket.socket) -> Iterator[tuple[int, str]]:
    """Return number and name of each interface at a LAN.

    The names are those of ``/proc``, because ``if_nameindex`` needs netlink, which a service manager may forbid.
    """
    for line in (NETWORK_FILES / "dev").read_text().splitlines()[2:]:
        name = line.partition(":")[0].strip()
        request = struct.pack("16s24x", name.encode())
        try:
            flags = interface_flags(probe, name)
            (number,) = struct.unpack_from("i", fcntl.ioctl(probe, _SIOCGIFINDEX, request), 16)
        except OSError:  # it has just gone
            continue
        if flags & _WANTED == _WANTED and not flags & _UNWANTED and not (_SYSFS / name / "brport").exists():
            yield number, name
