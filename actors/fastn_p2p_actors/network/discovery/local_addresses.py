"""Addresses of this machine, and notice from the kernel when an interface or an address comes or goes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NETWORK_FILES: Final = Path("/proc/thread-self/net")
_SIOCGIFCONF: Final = 0x8912
_SIOCGIFFLAGS: Final = 0x8913
_UP: Final = 0x1
_RUNNING: Final = 0x40
_ENTRY: Final = struct.Struct("16s4x4s16x")
"""``struct ifreq`` with an IPv4 address: name of the interface, and the address."""
_CONF: Final = struct.Struct("@iP")
"""``struct ifconf``: size and place of the entries."""
_MAX_ENTRIES: Final = 256
"""IPv4 addresses that are read at most."""
_NOT_USABLE: Final = 0x40 | 0x08
"""IPv6 addresses whose duplicate detection goes on, or has failed (IFA_F_TENTATIVE, IFA_F_DADFAILED)."""

_CHANGES: Final = 0x1 | 0x10 | 0x100
"""Netlink groups: links, IPv4 addresses, IPv6 addresses (rtnetlink(7))."""
_POLL: Final = 2.0
"""Seconds between two looks where the kernel may not be asked for notice. A look takes 0.1 ms."""


def find_addresses() -> frozenset[str]:
    """Return the addresses from which this machine can send to others now.

    They are those of interfaces that are up and have a carrier, without those of loopback and link-local ones.
    """
    found: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found_at: list[tuple[str, IPv4Address | IPv6Address]] = [*_ipv4_addresses(probe), *ipv6_addresses()]
        for name, address in found_at:
            if not address.is_loopback and not address.is_link_local and _is_running(probe, name):
                found.add(str(address))
    return frozenset(found)


def ipv6_addresses() -> Iterator[tuple[str, IPv6Address]]:
    """Return each IPv6 address that can be used, with the name of its interface."""
    try:
        lines = (NETWORK_FILES / "if_inet6").read_text().splitlines()
    except OSError:  # no IPv6
        return
    for address, _, _, _, flags, name in map(str.split, lines):
        if not int(flags, 16) & _NOT_USABLE:
            yield name, IPv6Address(bytes.fromhex(address))


def interface_flags(probe: socket.socket, name: str) -> int:
    """Return the flags of an interface, as in netdevice(7).

    Raises:
        OSError: it has gone.
    """
    (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode())), 16)
    return int(flags)


def _ipv4_addresses(probe: socket.socket) -> Iterator[tuple[str, IPv4Address]]:
    entries = array("B", bytes(_MAX_ENTRIES * _ENTRY.size))
    place, size = entries.buffer_info()
    size, _ = _CONF.unpack(fcntl.ioctl(probe, _SIOCGIFCONF, _CONF.pack(size, place)))
    for name, address in _ENTRY.iter_unpack(entries.tobytes()[:size]):
        yield name.partition(b"\0")[0].decode(), IPv4Address(address)


def _is_running(probe: socket.socket, name: str) -> bool:
    with suppress(OSError):
        return interface_flags(probe, name) & (_UP | _RUNNING) == _UP | _RUNNING
    return False


class InterfaceWatch:
    """Calls back some time after an interface or an address has come, gone or changed.

    Args:
        on_change: called on the event loop. Most changes are of no interest to it.
        delay: seconds after a change during which further ones are waited for.
    """

    def __init__(self, on_change: Callable[[], None], delay: float) -> None:
        self._on_change = on_change
        self._delay = delay
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
            self._timer = self._loop.call_later(self._delay, self._on_debounced)

    def _on_debounced(self) -> None:
        self._timer = None
        self._on_change()

    def _poll(self) -> None:
        self._timer = self._loop.call_later(_POLL, self._poll)
        self._on_change()
