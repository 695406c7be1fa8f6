"""Network interfaces on which multicast works, and notice of their changes from the kernel."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

_SIOCGIFINDEX: Final = 0x8933
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFADDR: Final = 0x8915
_UP: Final = 0x1
_LOOPBACK: Final = 0x8
_POINT_TO_POINT: Final = 0x10
_RUNNING: Final = 0x40
_MULTICAST: Final = 0x1000
_WANTED: Final = _UP | _RUNNING | _MULTICAST
_UNWANTED: Final = _LOOPBACK | _POINT_TO_POINT
"""Tunnels such as a VPN are no LAN: hosts behind them are others'. Nor are ports of a bridge: the bridge is."""

_NETWORK: Final = Path("/proc/thread-self/net")
_SYSFS: Final = Path("/sys/class/net")
_LINK_LOCAL: Final = 0x20
_NOT_USABLE: Final = 0x40 | 0x08
"""IPv6 addresses whose duplicate detection goes on, or has failed (IFA_F_TENTATIVE, IFA_F_DADFAILED)."""

_CHANGES: Final = 0x1 | 0x10 | 0x100
"""Netlink groups: links, IPv4 addresses, IPv6 addresses (rtnetlink(7))."""
_DEBOUNCE: Final = 0.1
"""Seconds after a change during which further ones are waited for."""
_POLL: Final = 2.0
"""Seconds between two looks where the kernel may not be asked for notice. A look takes 0.1 ms."""
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
    ipv6 = _link_local_addresses()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for number, name in sorted(_interfaces(probe)):
            request = struct.pack("16s24x", name.encode())
            with suppress(OSError):  # it has no IPv4 address
                raw = fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24]
                links.append(Link(number, socket.AF_INET, name, socket.inet_ntoa(raw)))
            if number in ipv6:
                links.append(Link(number, socket.AF_INET6, name, ipv6[number]))
    return frozenset(links[:_MAX_LINKS])


def _interfaces(probe: socket.socket) -> Iterator[tuple[int, str]]:
    """Return number and name of each interface at a LAN.

    The names are those of ``/proc``, because ``if_nameindex`` needs netlink, which a service manager may forbid.
    """
    for line in (_NETWORK / "dev").read_text().splitlines()[2:]:
        name = line.partition(":")[0].strip()
        request = struct.pack("16s24x", name.encode())
        try:
            (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
            (number,) = struct.unpack_from("i", fcntl.ioctl(probe, _SIOCGIFINDEX, request), 16)
        except OSError:  # it has just gone
            continue
        if flags & _WANTED == _WANTED and not flags & _UNWANTED and not (_SYSFS / name / "brport").exists():
            yield number, name


def _link_local_addresses() -> dict[int, str]:
    """Return the IPv6 link-local address of each interface that has one, by the interface's number."""
    try:
        lines = (_NETWORK / "if_inet6").read_text().splitlines()
    except OSError:  # no IPv6
        return {}
    found: dict[int, str] = {}
    for address, index, _, scope, flags, _ in map(str.split, lines):
        if int(scope, 16) == _LINK_LOCAL and not int(flags, 16) & _NOT_USABLE:
            found[int(index, 16)] = address
    return found


class InterfaceWatch:
    """Calls back some time after an interface or an address has come, gone or changed.

    Args:
        on_change: called on the event loop. Most changes are of no interest to it.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            self._socket.bind((0, _CHANGES))
        except OSError as error:
            log.info("interfaces are looked at every %g s, because the kernel gives no notice: %s", _POLL, error)
            self._close_socket()
            self._timer = self._loop.call_later(_POLL, self._poll)
        else:
            self._loop.add_reader(self._socket, self._on_notice, self._socket)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _on_notice(self, notices: socket.socket) -> None:
        for _ in range(64):
            try:
                notices.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # notices were lost, because there were too many: that is notice enough
                continue
        if self._timer is None:
            self._timer = self._loop.call_later(_DEBOUNCE, self._on_debounced)

    def _on_debounced(self) -> None:
        self._timer = None
        self._on_change()

    def _poll(self) -> None:
        self._timer = self._loop.call_later(_POLL, self._poll)
        self._on_change()
