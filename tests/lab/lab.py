"""The laboratory: a public network, routers with LANs behind them, and hosts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import TracebackType

from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from tests.lab.host import Host
from tests.lab.namespace import Namespace
from tests.lab.router import NatKind, Router
from tests.lab.segment import Segment
from tests.support.daemons import DEADLINE

__all__ = ["Lab", "reason_to_skip"]

_KEEPER = Path(__file__).with_name("keeper.py")


def reason_to_skip() -> str:
    """Say why there can be no laboratory here; empty if there can."""
    if os.geteuid() != 0:
        return "the laboratory makes network namespaces: only root can"
    try:
        with Lab() as lab:
            lab.router(wait=False)
    except (OSError, NetlinkError) as error:
        return f"the laboratory needs network namespaces, bridges and /dev/net/tun: {error}"
    return ""


class Lab:
    """Networks of one test. A context manager: leaving it ends every host.

    Attributes:
        net: the public network, 198.51.100.0/24 and 2001:db8::/64. Packets to addresses that do not exist vanish.
        hosts: by name.
        keeper_pid: process that ends the hosts' programs when this process is gone.
    """

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._closing = ExitStack()
        try:
            self._set_up()
        except BaseException:
            self._closing.close()
            raise

    def _set_up(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
        # Descriptors of namespaces are this process's: the keeper learns of its end, however that comes, by the pipe.
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER), str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.keeper_pid = self._keeper.pid
        self._closing.callback(self._end_keeper)
        self._switch = Namespace()
        self._closing.callback(self._switch.close)
        self._routers = self._lans = 0
        self.hosts: dict[str, Host] = {}
        self.net = Segment(self._switch, "net", IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8::/64"))
        self._set_up_core()

    def _set_up_core(self) -> None:
        """Let the switch route between public networks; packets to others vanish, as on the internet."""
        switch, net = self._switch, self.net
        switch.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        bridge = switch.index(net.name)
        net.gateway, net.gateway6 = net.network[254], net.network6[254]
        net.reserve(net.gateway)
        switch.ip.addr("add", index=bridge, address=str(net.gateway), prefixlen=24)
        switch.ip.addr("add", index=bridge, address=str(net.gateway6), prefixlen=64, flags=0x02)
        switch.ip.route("add", family=socket.AF_INET, dst="0.0.0.0/0", type="blackhole")
        switch.ip.route("add", family=socket.AF_INET6, dst="::/0", type="blackhole")

    def router(
        self,
        nat: NatKind = "cone",
        *,
        firewall: bool = True,
        timeout: float = 60.0,
        ipv6: bool = True,
        wait: bool = True,
    ) -> Router:
        """Return a new router at ``net``, with a new LAN behind it: the first has .11 and 10.1.0.0/24, and so on.

        Args:
            nat: ``cone`` (one outside port, the same number if it is free, for all destinations), ``symmetric`` (a
                fresh port for each destination) or ``none`` (the LAN is routed). For UDP, TCP and ICMP echo over IPv4.
            firewall: whether unsolicited packets from outside are dropped where nothing is translated: IPv6, ``none``.
            timeout: seconds after which an unused flow of UDP is forgotten.
            ipv6: whether the LAN has routed IPv6 addresses; otherwise unique local ones, which lead nowhere.
            wait: for its process, which takes 0.2 s to start; otherwise call its ``wait_ready`` later.
        """
        lan = self.lan(ipv6=ipv6)
        self._routers += 1
        router = Router(
            self._routers,
            self.net,
            lan,
            self._switch,
            kind=nat,
            firewall=firewall,
            timeout=timeout,
            seed=self._seed + self._routers,
        )
        self._closing.callback(router.close)
        if not ipv6:
            lan.gateway6 = None
        if wait:
            router.wait_ready()
        return router

    def lan(self, *, ipv6: bool = False) -> Segment:
        """Return a new LAN without a router: 10.N.0.0/24, and fd00:N::/64 or, ``ipv6``, 2001:db8:N::/64."""
        self._lans += 1
        prefix6 = "2001:db8" if ipv6 else "fd00"
        number = self._lans
        return Segment(
            self._switch, f"lan{number}", IPv4Network(f"10.{number}.0.0/24"), IPv6Network(f"{prefix6}:{number:x}::/64")
        )

    def host(self, name: str, *segments: Segment, address: str | None = None, ipv6: bool = True) -> Host:
        """Return a new host with one interface at each of the segments, eth0 and so on.

        Args:
            address: IPv4 address of the first one instead of a free one.
        """
        assert name not in self.hosts, f"there is a host {name}"
        host = Host(name, self._directory / name)
        self.hosts[name] = host
        self._closing.callback(host.close)
        self._keep(host)
        for number, segment in enumerate(segments):
            host.attach(segment, address if number == 0 else None, ipv6=ipv6)
        return host

    def _keep(self, host: Host) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(f"/proc/{os.getpid()}/fd/{host.namespace.fd}\n")
        self._keeper.stdin.flush()
        assert self._keeper.stdout.readline() == "held\n", "the keeper of the namespaces ended"

    def _end_keeper(self) -> None:
        self._keeper.communicate(timeout=DEADLINE)

    def close(self) -> None:
        """End every program and daemon, then the networks.

        Raises:
            AssertionError: a process of a daemon outlived it. The rest is ended all the same.
        """
        with self._closing:
            # At the same time: each daemon says goodbye to peers over the slow networks of a test.
            with ThreadPoolExecutor(len(self.hosts) + 1) as threads:
                ends = [threads.submit(host.stop) for host in self.hosts.values()]
            for end in ends:
                end.result()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, type: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
