"""A router of the laboratory: a LAN behind it, one outside address, and all that can go wrong between the two."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

import msgspec

from tests.lab import nat
from tests.lab.impairment import Block, Impairment
from tests.lab.namespace import Namespace
from tests.lab.router_process import BOTH, Change, Forget, GetCounts, Request, SetBlocks, SetImpairment, Start
from tests.lab.segment import Segment
from tests.support.daemons import DEADLINE

__all__ = ["Direction", "NatKind", "Router"]

Direction = Literal["out", "in", "both"]
NatKind = Literal["cone", "symmetric", "none"]

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_FROM_LAN, _FROM_OUTSIDE = 100, 101
"""Routing tables for packets that arrive from the LAN, and from outside."""
_ROOT = Path(__file__).resolve().parents[2]


class Router:
    """A namespace with two TUN devices, and a process between them. Made by ``Lab.router``.

    Attributes:
        lan: the segment behind it.
        outside: its outside IPv4 address.
        kind: of its network address translation.
    """

    def __init__(
        self,
        number: int,
        outside: Segment,
        lan: Segment,
        core: Namespace,
        *,
        kind: NatKind,
        firewall: bool,
        timeout: float,
        seed: int,
    ) -> None:
        self.lan = lan
        self.kind: NatKind = kind
        self.outside = outside.network[10 + number]
        assert not outside.is_taken(self.outside), f"a host has {self.outside}, which is this router's"
        outside.reserve(self.outside)
        self._number = number
        self._segment = outside
        self._core = core
        self._namespace = Namespace()
        self._process: subprocess.Popen[bytes] | None = None
        self._blocks: dict[str, list[Block]] = {"out": [], "in": []}
        self._set_up_interfaces()
        self._set_up_routes()
        self._start(Start(kind, self.outside.packed, firewall, timeout, seed))

    def _set_up_interfaces(self) -> None:
        namespace, lan, outside = self._namespace, self.lan, self._segment
        namespace.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        self._lan_port = lan.attach(namespace, "lan0")
        lan.gateway, lan.gateway6 = lan.network[1], lan.network6[1]
        self._lan_port.set_address(lan.gateway, lan.gateway6)
        self._port = outside.attach(namespace, "net0")
        self._port.set_address(outside.network[240 + self._number], outside.network6[10 + self._number])
        # The kernel answers ARP for the outside address, which no interface has: its packets go to the process.
        namespace.sysctl({"ipv4/conf/net0/proxy_arp": 1, "ipv4/neigh/net0/proxy_delay": 0})
        self._devices = [namespace.call(lambda name=name: _open_tun(name)) for name in ("inside", "outside")]  # type: ignore[misc]
        for name in ("inside", "outside"):
            namespace.sysctl({f"ipv6/conf/{name}/addr_gen_mode": 1})
            namespace.ip.link("set", index=namespace.index(name), state="up")

    def _set_up_routes(self) -> None:
        namespace, ip = self._namespace, self._namespace.ip
        inside, outside = namespace.index("inside"), namespace.index("outside")
        families: list[tuple[int, str, str]] = [
            (socket.AF_INET, "0.0.0.0/0", str(self.lan.network)),
            (socket.AF_INET6, "::/0", str(self.lan.network6)),
        ]
        for family, everywhere, lan in families:
            ip.rule("add", family=family, iifname="lan0", table=_FROM_LAN, priority=_FROM_LAN)
            ip.rule("add", family=family, iifname="net0", table=_FROM_OUTSIDE, priority=_FROM_OUTSIDE)
            ip.route("add", family=family, dst=everywhere, oif=inside, table=_FROM_LAN)
            ip.route("add", family=family, dst=lan, oif=outside, table=_FROM_OUTSIDE)
        ip.route("add", dst=f"{self.outside}/32", oif=outside)
        if self.kind == nat.NONE:
            self._core.ip.route("add", dst=str(self.lan.network), gateway=str(self._port.address))
        self._core.ip.route("add", family=socket.AF_INET6, dst=str(self.lan.network6), gateway=str(self._port.address6))

    def _start(self, start: Start) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(DEADLINE)
        with other:
            descriptors = [other.fileno(), *self._devices]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.router_process", *map(str, descriptors)],
                cwd=_ROOT,
                pass_fds=descriptors,
            )
        for device in self._devices:
            os.close(device)
        self._send(start)
        self._unanswered = 1

    def _send(self, message: Request) -> None:
        self._control.send(msgspec.msgpack.encode(message))

    @property
    def pid(self) -> int:
        """Process that forwards."""
        assert self._process is not None
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until the process forwards."""
        for _ in range(self._unanswered):
            self._control.recv(65536)
        self._unanswered = 0

    def _request(self, message: Request) -> dict[str, int]:
        self.wait_ready()
        self._send(message)
        return msgspec.msgpack.decode(self._control.recv(65536), type=dict[str, int])

    # -- what a test does with it --------------------------------------------------------------------

    def impair(
        self,
        *,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss: float = 0.0,
        rate: float = 0.0,
        direction: Direction = "both",
    ) -> None:
        """Replace delay, jitter, loss and rate of a direction; without arguments the router is perfect again.

        Args:
            delay_ms: one way. A round trip through one router takes twice as long, through two routers four times.
            jitter_ms: by so much a packet's delay varies, up and down; packets stay in order.
            loss: fraction of packets that are lost, such as 0.1.
            rate: bytes per second. Its queue holds 0.1 s, then it drops packets. 0: unlimited.
        """
        self._request(
            SetImpairment(direction, Impairment(delay=delay_ms / 1000, jitter=jitter_ms / 1000, loss=loss, rate=rate))
        )

    def block(self, direction: Direction = "both", *, protocol: int = 0, remote: str = "") -> None:
        """Drop packets without a word, in addition to what is blocked already: a black hole.

        Args:
            protocol: such as ``socket.IPPROTO_UDP``; 0: all.
            remote: address on the other side of the router; empty: all.
        """
        block = Block(protocol=protocol, remote=ipaddress.ip_address(remote).packed if remote else b"")
        for each in self._blocks if direction == BOTH else [direction]:
            self._blocks[each].append(block)
            self._request(SetBlocks(each, self._blocks[each]))

    def block_udp(self, direction: Direction = "both") -> None:
        """Drop UDP, IPv4 and IPv6."""
        self.block(direction, protocol=socket.IPPROTO_UDP)

    def unblock(self) -> None:
        """Drop nothing on purpose any more."""
        for direction, blocks in self._blocks.items():
            blocks.clear()
            self._request(SetBlocks(direction, blocks))

    def link(self, up: bool) -> None:
        """Cut the router off from the outside, or connect it again. Its LAN sees nothing of it."""
        self._port.set_link(up)

    def set_nat(self, kind: NatKind) -> None:
        """Translate in another way from now on; every flow is forgotten. ``none`` only if it was made so."""
        assert (kind == nat.NONE) == (self.kind == nat.NONE), "routes to its LAN are made at the start"
        self.kind = kind
        self._request(Change(kind, self.outside.packed))

    def forget_flows(self) -> None:
        """Forget every mapping, as when it reboots and keeps its address."""
        self._request(Forget())

    def reboot_outside_address(self, address: str | None = None) -> str:
        """Change the outside IPv4 address (default: to a free one) and forget every flow; returns the new address."""
        ip, outside = self._namespace.ip, self._namespace.index("outside")
        old, self.outside = self.outside, IPv4Address(address) if address else self._segment.free_address()
        self._segment.reserve(self.outside)
        ip.route("del", dst=f"{old}/32", oif=outside)
        ip.route("add", dst=f"{self.outside}/32", oif=outside)
        self._request(Change(self.kind, self.outside.packed))
        return str(self.outside)

    def counts(self) -> dict[str, int]:
        """Return numbers of packets: ``out_forwarded``, ``in_lost``, ``in_blocked``, ``unsolicited`` and others."""
        return self._request(GetCounts())

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._control.close()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._namespace.close()


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device
