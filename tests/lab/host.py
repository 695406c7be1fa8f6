"""A host of the laboratory: a namespace with interfaces, in which a test runs programs and daemons."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.daemons import HostDaemon
from tests.lab.namespace import Namespace
from tests.lab.segment import Interface, Segment
from tests.support.daemons import DEADLINE

__all__ = ["Host"]

T = TypeVar("T")


class Host:
    """A machine.

    Attributes:
        name: unique in the laboratory.
        namespace: where its programs run.
        directory: files of its daemons.
        interfaces: by name.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.directory.mkdir()
        self.namespace = Namespace()
        self.interfaces: dict[str, Interface] = {}
        self._numbers = iter(range(1000))
        self._programs: list[subprocess.Popen[Any]] = []
        self._daemons: list[HostDaemon] = []

    # -- network -------------------------------------------------------------------------------------

    def attach(
        self, segment: Segment, address: str | IPv4Address | None = None, *, ipv4: bool = True, ipv6: bool = True
    ) -> Interface:
        """Add an interface at the segment, with an address that is free there.

        Args:
            address: the IPv4 address instead.
            ipv4, ipv6: whether it has addresses of that kind; the link-local one in IPv6 stays.
        """
        interface = segment.attach(self.namespace, f"eth{next(self._numbers)}")
        self.interfaces[interface.name] = interface
        chosen = IPv4Address(address) if address else segment.free_address()
        interface.set_address(chosen if ipv4 else None, _ipv6_like(segment, chosen) if ipv6 else None)
        return interface

    def detach(self, interface: Interface | None = None) -> None:
        """Remove an interface; without argument each of them: the host is in no network."""
        for each in [interface] if interface else list(self.interfaces.values()):
            del self.interfaces[each.name]
            each.detach()

    def move(self, segment: Segment, address: str | None = None, *, ipv6: bool = True) -> Interface:
        """Leave every network and join this one, as a laptop that changes its Wi-Fi."""
        self.detach()
        return self.attach(segment, address, ipv6=ipv6)

    @property
    def interface(self) -> Interface:
        """The first interface."""
        return next(iter(self.interfaces.values()))

    @property
    def address(self) -> str:
        """IPv4 address of the first interface."""
        assert self.interface.address is not None, f"{self.name} has no IPv4 address"
        return str(self.interface.address)

    @property
    def address6(self) -> str:
        """IPv6 address of the first interface."""
        assert self.interface.address6 is not None, f"{self.name} has no IPv6 address"
        return str(self.interface.address6)

    def set_address(self, address: str | None = None) -> str:
        """Give the first interface another IPv4 address (default: a free one) and the IPv6 address that goes with it.

        Returns:
            The new IPv4 address.
        """
        interface = self.interface
        chosen = IPv4Address(address) if address else interface.segment.free_address()
        has6 = interface.address6 is not None
        interface.set_address(chosen, _ipv6_like(interface.segment, chosen) if has6 else None)
        return str(chosen)

    def link(self, up: bool) -> None:
        """Pull the cables of all interfaces, or plug them in: the host notices at once. Addresses stay."""
        for interface in self.interfaces.values():
            interface.set_link(up)

    def silence(self, silent: bool = True) -> None:
        """Lose every packet of the host, while its links look sound."""
        for interface in self.interfaces.values():
            interface.set_silent(silent)

    def call(self, function: Callable[[], T]) -> T:
        """Run the function in a thread inside the host; sockets and threads that it makes stay inside."""
        return self.namespace.call(function)

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        """Return a new socket of the host. The test uses it, and closes it, as any other."""
        return self.namespace.socket(family, type, protocol)

    # -- programs ------------------------------------------------------------------------------------

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the host until it ends: ``subprocess.run`` with output as text."""
        options = {"capture_output": True, "text": True, "timeout": DEADLINE, **options}
        result: subprocess.CompletedProcess[str] = subprocess.run([*self.namespace.prefix, *command], **options)
        return result

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the host: ``subprocess.Popen``. It is killed with the laboratory at the latest."""
        program: subprocess.Popen[Any] = subprocess.Popen([*self.namespace.prefix, *command], **options)
        self._programs.append(program)
        return program

    def daemon(self, name: str = "daemon", *, network: str = "internet", **env: str) -> HostDaemon:
        """Return a daemon of the host, not started yet: ``.start()`` it.

        Daemons of one host find each other by ID52 through the host directory; those of two hosts do not.

        Args:
            name: of its home; a second daemon of the host needs another one.
            network: ``daemon --network``.
            env: further variables of its environment.
        """
        daemon = HostDaemon(self.namespace, self.directory / name, self.directory / "hosts", network, **env)
        self._daemons.append(daemon)
        return daemon

    # -- end -----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the programs and daemons.

        Raises:
            AssertionError: a daemon's process outlived it.
        """
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.communicate()
        self._programs.clear()
        daemons, self._daemons = self._daemons, []
        for daemon in daemons:
            daemon.clean_up()

    def close(self) -> None:
        """Remove the host."""
        self.namespace.close()


def _ipv6_like(segment: Segment, address: IPv4Address) -> IPv6Address:
    return segment.network6[int(address) - int(segment.network.network_address)]
