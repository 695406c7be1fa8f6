"""Network address translation and stateful firewall (RFC 4787): IPv4 is translated, IPv6 only filtered.

Filtering is address- and port-dependent in each kind: a packet from outside passes if it answers one from inside.
"""

from __future__ import annotations

import struct
from collections import Counter
from random import Random
from typing import Final

__all__ = ["CONE", "NONE", "SYMMETRIC", "UDP", "Nat", "protocol_of", "remote_of"]

CONE: Final = "cone"
"""Mapping with one outside port for all destinations of an inside port: the same number, if it is free."""
SYMMETRIC: Final = "symmetric"
"""A fresh outside port, by chance, for each destination."""
NONE: Final = "none"
"""Addresses are not translated."""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_ECHO, _ECHO_REPLY, _ECHO_V6, _ECHO_REPLY_V6 = 8, 0, 128, 129
_FIRST_PORT: Final = 1024
_U16: Final = struct.Struct("!H")
_CHECKSUM_AT: Final = {TCP: 36, UDP: 26, ICMP: 22}
"""Offset of the checksum in a packet whose IP header has 20 bytes."""


def protocol_of(packet: bytes) -> int:
    """Return the number of the protocol above IP."""
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def remote_of(packet: bytes, *, outbound: bool) -> bytes:
    """Return the outside host's address: 4 or 16 bytes."""
    if packet[0] >> 4 == 4:
        return packet[16:20] if outbound else packet[12:16]
    return packet[24:40] if outbound else packet[8:24]


class _Rewrite:
    """Replacement of one address and one port in a packet, with its checksums (RFC 1624)."""

    def __init__(self, protocol: int, address_at: int, old: bytes, new: bytes, port_at: int) -> None:
        address, port = new[:4], new[4:]
        self._address = slice(address_at, address_at + 4)
        self._port = slice(port_at, port_at + 2)
        self._new_address, self._new_port = address, port
        self._ip_delta = _delta(old[:4], address)
        port_delta = _delta(old[4:], port)
        self._delta = port_delta if protocol == ICMP else self._ip_delta + port_delta
        self._checksum_at = _CHECKSUM_AT[protocol]
        self._optional = protocol == UDP

    def apply(self, packet: bytes) -> bytearray:
        """Return the packet with the new address and port."""
        result = bytearray(packet)
        result[self._address] = self._new_address
        result[self._port] = self._new_port
        _adjust(result, 10, self._ip_delta)
        if self._optional:
            at = self._checksum_at
            if result[at] or result[at + 1]:  # UDP over IPv4 may go without a checksum
                _adjust(result, at, self._delta)
                if not (result[at] or result[at + 1]):
                    result[at] = result[at + 1] = 0xFF
        else:
            _adjust(result, self._checksum_at, self._delta)
        return result


def _delta(old: bytes, new: bytes) -> int:
    words = struct.Struct(f"!{len(old) // 2}H")
    return sum(0xFFFF - int(word) for word in words.unpack(old)) + sum(map(int, words.unpack(new)))


def _adjust(packet: bytearray, at: int, delta: int) -> None:
    total = 0xFFFF - ((packet[at] << 8) + packet[at + 1]) + delta
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    _U16.pack_into(packet, at, 0xFFFF - total)


class _Flow:
    """Packets of one protocol between an inside and an outside address and port."""

    __slots__ = ("inbound", "inbound_key", "last", "outbound")

    def __init__(self, inbound_key: bytes, outbound: _Rewrite | None, inbound: _Rewrite | None) -> None:
        self.inbound_key = inbound_key
        self.outbound = outbound
        self.inbound = inbound
        self.last = 0.0


class Nat:
    """Translates the packets of one router.

    Args:
        kind: ``CONE``, ``SYMMETRIC`` or ``NONE``.
        outside: outside address, 4 bytes.
        firewall: whether unsolicited packets from outside are dropped where nothing is translated.
        timeout: seconds after which an unused flow of UDP or ICMP is forgotten.

    Attributes:
        counts: number of packets that were dropped, by reason.
    """

    def __init__(self, kind: str, outside: bytes, firewall: bool, timeout: float, random: Random) -> None:
        self._kind = kind
        self._outside = outside
        self._firewall = firewall
        self._timeout = timeout
        self._random = random
        self._flows: dict[bytes, _Flow] = {}
        self._inbound: dict[bytes, _Flow] = {}
        self._ports: dict[tuple[int, bytes], bytes] = {}
        """Outside port of an inside address and port, in a cone NAT."""
        self._taken: dict[tuple[int, bytes], int] = {}
        """Number of flows, or 1 for a cone's mapping, of an outside port."""
        self.counts: Counter[str] = Counter()

    def change(self, kind: str, outside: bytes) -> None:
        """Use another kind or outside address, and forget every flow."""
        self._kind = kind
        self._outside = outside
        self.forget()

    def forget(self) -> None:
        """Forget every flow, as a router does when it reboots."""
        self._flows.clear()
        self._inbound.clear()
        self._ports.clear()
        self._taken.clear()

    def outbound(self, packet: bytes, now: float) -> bytes | bytearray | None:
        """Return the packet as it leaves the router; None if it is dropped."""
        key = _key(packet)
        if key is None:
            return self._without_flow(packet)
        flow = self._flows.get(key)
        if flow is None or (now - flow.last > self._timeout and key[0] != TCP):
            if flow is not None:
                self._remove(key, flow)
            flow = self._open(key)
        flow.last = now
        return packet if flow.outbound is None else flow.outbound.apply(packet)

    def inbound(self, packet: bytes, now: float) -> bytes | bytearray | None:
        """Return the packet as it enters the LAN; None if it is dropped."""
        key = _key(packet)
        if key is None:
            return self._without_flow(packet)
        flow = self._inbound.get(key)
        if flow is None or (now - flow.last > self._timeout and key[0] != TCP):
            if not self._firewall and (len(key) > 13 or self._kind == NONE):
                return packet
            self.counts["unsolicited"] += 1
            return None
        flow.last = now
        return packet if flow.inbound is None else flow.inbound.apply(packet)

    def _without_flow(self, packet: bytes) -> bytes | None:
        """Pass ICMPv6 errors, which say that a packet is too big. Drop fragments, and IPv4's other protocols."""
        if packet[0] >> 4 == 6 and packet[6] == ICMPV6 and packet[40] < _ECHO_V6:
            return packet
        self.counts["unsupported"] += 1
        return None

    def _open(self, key: bytes) -> _Flow:
        protocol = key[0]
        if len(key) > 13:
            inbound_key = key[:1] + key[17:33] + key[1:17] + key[35:37] + key[33:35]
            flow = _Flow(inbound_key, None, None)
        else:
            inside, remote = key[1:5] + key[9:11], key[5:9] + key[11:13]
            outside = inside if self._kind == NONE else self._outside + self._outside_port(protocol, inside)
            if protocol == ICMP:  # the identifier is the port of both sides
                remote = remote[:4] + outside[4:]
            inbound_key = key[:1] + remote[:4] + outside[:4] + remote[4:] + outside[4:]
            if outside == inside:
                flow = _Flow(inbound_key, None, None)
            else:
                ports = (24, 24) if protocol == ICMP else (20, 22)
                flow = _Flow(
                    inbound_key,
                    _Rewrite(protocol, 12, inside, outside, ports[0]),
                    _Rewrite(protocol, 16, outside, inside, ports[1]),
                )
        self._flows[key] = flow
        self._inbound[inbound_key] = flow
        return flow

    def _outside_port(self, protocol: int, inside: bytes) -> bytes:
        if self._kind == SYMMETRIC:
            return self._free_port(protocol, _U16.pack(self._random.randrange(_FIRST_PORT, 65536)))
        mapping = protocol, inside
        if mapping not in self._ports:
            self._ports[mapping] = self._free_port(protocol, inside[4:])
        return self._ports[mapping]

    def _free_port(self, protocol: int, wanted: bytes) -> bytes:
        while (protocol, wanted) in self._taken:
            wanted = _U16.pack(self._random.randrange(_FIRST_PORT, 65536))
        self._taken[protocol, wanted] = 1
        return wanted

    def _remove(self, key: bytes, flow: _Flow) -> None:
        del self._flows[key]
        self._inbound.pop(flow.inbound_key, None)
        if self._kind == SYMMETRIC and len(key) == 13:
            self._taken.pop((key[0], flow.inbound_key[11:13]), None)


def _key(packet: bytes) -> bytes | None:
    """Return protocol, source, destination and both ports; None where there are no ports."""
    first = packet[0]
    if first == 0x45:
        if packet[6] & 0x3F or packet[7]:  # a fragment
            return None
        protocol = packet[9]
        if protocol in (UDP, TCP):
            return packet[9:10] + packet[12:24]
        if protocol == ICMP and packet[20] in (_ECHO, _ECHO_REPLY):
            return packet[9:10] + packet[12:20] + packet[24:26] + packet[24:26]
    elif first >> 4 == 6:
        protocol = packet[6]
        if protocol in (UDP, TCP):
            return packet[6:7] + packet[8:44]
        if protocol == ICMPV6 and packet[40] in (_ECHO_V6, _ECHO_REPLY_V6):
            return packet[6:7] + packet[8:40] + packet[44:46] + packet[44:46]
    return None
