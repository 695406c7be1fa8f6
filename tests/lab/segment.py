"""A network segment: one Ethernet that hosts and routers are attached to, with IPv4, IPv6 and multicast."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from tests.lab.namespace import Namespace

__all__ = ["Interface", "Segment"]

_NO_DAD = 0x02
"""``IFA_F_NODAD``: an IPv6 address is usable at once."""
_FIRST_HOST = 30
"""Number of the first host in its network; lower ones are for tests that want an address of their choice."""
_FORWARDING = 3
"""State of a bridge port (IEEE 802.1D)."""
_LINK_TIMEOUT = 30.0
_FIRST_PORT = 1000
"""Index of the first bridge port. Linux lets a virtual cable whose ends have the same index wait a second for its
carrier; no host has so many interfaces."""


class Segment:
    """A bridge in the switch's namespace.

    Attributes:
        name: of the bridge.
        network, network6: its addresses. Hosts that want none in particular get those from number 30 on.
        gateway, gateway6: address of its router, if it has one.
    """

    def __init__(self, switch: Namespace, name: str, network: IPv4Network, network6: IPv6Network) -> None:
        self.name = name
        self.network = network
        self.network6 = network6
        self.gateway: IPv4Address | None = None
        self.gateway6: IPv6Address | None = None
        self._switch = switch
        self._parts = iter(range(_FIRST_HOST, network.num_addresses - 1))
        self._taken: set[IPv4Address] = set()
        switch.ip.link("add", ifname=name, kind="bridge", br_mcast_snooping=0)
        switch.ip.link("set", index=switch.index(name), state="up")

    def free_address(self) -> IPv4Address:
        """Return an address that no host had before."""
        return next(address for part in self._parts if (address := self.network[part]) not in self._taken)

    def attach(self, namespace: Namespace, name: str) -> Interface:
        """Plug a cable into the segment; the interface at its other end has no addresses yet."""
        return Interface(self, self._switch, namespace, name)

    def reserve(self, address: IPv4Address) -> None:
        """Never give this address to another host."""
        self._taken.add(address)

    def is_taken(self, address: IPv4Address) -> bool:
        """Return whether a host or a router has this address, or had it."""
        return address in self._taken


class Interface:
    """A network card of a host, and its cable to a segment.

    Attributes:
        segment: the segment at the other end.
        name: such as ``eth0``.
        address, address6: the address in IPv4; a routable or unique local one in IPv6. None: it has none.
    """

    _ports: Iterator[int] = itertools.count(_FIRST_PORT)

    def __init__(self, segment: Segment, switch: Namespace, namespace: Namespace, name: str) -> None:
        self.segment = segment
        self.name = name
        self.address: IPv4Address | None = None
        self.address6: IPv6Address | None = None
        self._switch = switch
        self._namespace = namespace
        self._up = True
        self._silent = False
        self._port = next(self._ports)
        port = f"port{self._port}"
        switch.ip.link(
            "add", ifname=port, index=self._port, kind="veth", peer={"ifname": name, "net_ns_fd": namespace.fd}
        )
        self.index = namespace.index(name)
        switch.sysctl({f"ipv6/conf/{port}/disable_ipv6": 1})
        self._bridge = switch.index(segment.name)
        switch.ip.link("set", index=self._port, master=self._bridge)
        # Without this, IPv6 addresses and routes are gone when the link was down.
        namespace.sysctl({f"ipv6/conf/{name}/keep_addr_on_down": 1})
        # The port last: a bridge forwards from the moment at which a port with a carrier goes up.
        namespace.ip.link("set", index=self.index, state="up")
        switch.ip.link("set", index=self._port, state="up")
        self._wait_link()

    def _wait_link(self) -> None:
        """Wait until both ends of the cable are in use, which takes Linux milliseconds: an ARP request before that is
        lost, and the next one follows after a second."""
        deadline = time.monotonic() + _LINK_TIMEOUT
        while True:
            (port,) = self._switch.ip.get_links(self._port)
            (card,) = self._namespace.ip.get_links(self.index)
            states = port.get_attr("IFLA_OPERSTATE"), card.get_attr("IFLA_OPERSTATE")
            if states == ("UP", "UP") and (self._silent or _is_forwarding(port)):
                return
            assert time.monotonic() < deadline, f"the cable of {self.name} does not work: {states}"
            time.sleep(0.001)

    def set_address(self, address: str | IPv4Address | None, address6: str | IPv6Address | None = None) -> None:
        """Replace the addresses. None: the interface has none of that kind. Its routes are made anew."""
        new = None if address is None else IPv4Address(address)
        new6 = None if address6 is None else IPv6Address(address6)
        changes: list[tuple[Any, Any, IPv4Network | IPv6Network]] = [
            (self.address, new, self.segment.network),
            (self.address6, new6, self.segment.network6),
        ]
        for old, wanted, network in changes:
            if old == wanted:
                continue
            if old is not None:
                self._namespace.ip.addr("del", index=self.index, address=str(old), prefixlen=network.prefixlen)
            if wanted is not None:
                flags = {"flags": _NO_DAD} if wanted.version == 6 else {}
                self._namespace.ip.addr(
                    "add", index=self.index, address=str(wanted), prefixlen=network.prefixlen, **flags
                )
        self.address, self.address6 = new, new6
        if new is not None:
            self.segment.reserve(new)
        self._add_default_routes()

    def _add_default_routes(self) -> None:
        routes: list[tuple[Any, Any, Any, str]] = [
            (socket.AF_INET, self.address, self.segment.gateway, "0.0.0.0/0"),
            (socket.AF_INET6, self.address6, self.segment.gateway6, "::/0"),
        ]
        for family, address, gateway, destination in routes:
            if address is not None and gateway is not None and gateway != address:
                self._namespace.ip.route(
                    "replace",
                    family=family,
                    dst=destination,
                    gateway=str(gateway),
                    oif=self.index,
                    priority=100 + self.index,
                )

    def set_link(self, up: bool) -> None:
        """Pull the cable, or plug it in again: the host sees at once that the carrier is gone. Addresses stay."""
        self._up = up
        self._switch.ip.link("set", index=self._port, state="up" if up else "down")
        if up:
            self._wait_link()
            self._add_default_routes()

    def set_silent(self, silent: bool) -> None:
        """Lose every packet, while the host sees a working link."""
        self._silent = silent
        self._switch.ip.link("set", index=self._port, master=0 if silent else self._bridge)
        if self._up and not silent:
            self._wait_link()

    def detach(self) -> None:
        """Remove the interface, as a card that is pulled out."""
        self._switch.ip.link("del", index=self._port)
        self.address = self.address6 = None


def _is_forwarding(port: Any) -> bool:
    bridge_port = port.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    return bool(bridge_port.get_attr("IFLA_BRPORT_STATE") == _FORWARDING)
