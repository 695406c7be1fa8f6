"""Outside addresses of this daemon, as others report them: which of them are trusted and published.

Problem: behind a NAT only others know the address at which this daemon is reached, and anybody may lie. A daemon that
trusts every report would publish the address of a victim, and every peer would send packets there.

Idea: a report counts once for each endpoint, as its last one. An address is trusted when two endpoints report it, and
a known peer speaks through at least one of them. Strangers of one network count as one. The relay is named by the
owner, so an address with the IP address that the relay sees needs one known peer only. A private address counts only
if the reporter has a private address itself: then both are in one network behind the same NAT.

Cost: one pass over at most ``MAX_REPORTERS`` reports for each new report. Not covered: a known peer that lies together
with a second endpoint of its own. It makes this daemon publish up to ``MAX_TRUSTED`` wrong addresses until they are
forgotten; peers then send a few packets there, and reach the daemon by its other addresses.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

from ..transport.peer_limits import network_of

MAX_REPORTERS: Final = 256
"""Endpoints whose reports are remembered. A stranger's is dropped first, then the oldest."""
MAX_TRUSTED: Final = 4
"""Outside addresses that are published at a time: one home has one, a second provider has another."""
MEMORY: Final = 120.0
"""Seconds for which a report counts after its connection has ended. NATs keep unused mappings about that long."""
_LONGEST: Final = 64
"""Characters of an address."""

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PRIVATE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""Private networks (RFC 1918, RFC 6598, RFC 4193). ``ip_address.is_private`` has more, such as those of examples."""
_UNUSED: Final = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", "240.0.0.0/4")))


class _Report:
    """Last report of one endpoint.

    Attributes:
        network: network of the reporter; empty if unknown.
        is_known: True if a known peer speaks through the endpoint.
        until: time until which it counts; infinite while the connection is open.
    """

    __slots__ = ("address", "is_known", "network", "until")

    def __init__(self, address: str, network: str, is_known: bool) -> None:
        self.address = address
        self.network = network
        self.is_known = is_known
        self.until = float("inf")


class ReportedAddresses:
    """Reports of other daemons and of the relay, and the addresses that are trusted by them. Times are monotonic
    seconds."""

    def __init__(self) -> None:
        self._reports: dict[tuple[bytes, int], _Report] = {}
        """By endpoint and IP version: an endpoint may see one address of each."""
        self._relay_hosts: dict[int, str] = {}
        """IP address that the relay sees, by IP version."""

    def __len__(self) -> int:
        return len(self._reports)

    def add(self, endpoint: bytes, address: str, *, reporter: str, is_known: bool) -> bool:
        """Add the report of an endpoint, in place of its earlier one. Return False if it cannot be an outside address.

        Args:
            address: ``ip:port`` that the endpoint sees.
            reporter: ``ip:port`` at which this daemon reaches the endpoint; empty if unknown.
            is_known: whether a known peer speaks through the endpoint.
        """
        seen = _parse(address)
        if seen is None or not is_outside(seen[0], reporter):
            return False
        host, port = seen
        key = endpoint, host.version
        self._reports.pop(key, None)
        self._reports[key] = _Report(join(host, port), network_of(reporter), is_known)
        if len(self._reports) > MAX_REPORTERS:
            del self._reports[next((each for each in self._reports if not self._reports[each].is_known), key)]
        return True

    def on_known(self, endpoint: bytes) -> bool:
        """A known peer speaks through the endpoint. Return whether a report counts more now."""
        changed = False
        for report in self._of(endpoint):
            changed = changed or not report.is_known
            report.is_known = True
        return changed

    def on_closed(self, endpoint: bytes, now: float) -> bool:
        """The last connection with the endpoint has ended. Return whether it had reported anything."""
        reports = self._of(endpoint)
        for report in reports:
            report.until = now + MEMORY
        return bool(reports)

    def set_relay_hosts(self, hosts: dict[int, str]) -> None:
        """Set the IP address of this daemon that its relay sees, by IP version."""
        self._relay_hosts = hosts

    def trusted(self, now: float) -> list[str]:
        """Return the addresses that are trusted, those with most known reporters first. Forget old reports."""
        for key in [key for key, report in self._reports.items() if report.until <= now]:
            del self._reports[key]
        by_address: dict[str, list[_Report]] = {}
        for report in self._reports.values():
            by_address.setdefault(report.address, []).append(report)
        good = [address for address, reports in by_address.items() if self._is_good(address, reports)]
        good.sort(key=lambda address: -sum(report.is_known for report in by_address[address]))
        return good[:MAX_TRUSTED]

    def next_expiry(self) -> float:
        """Return the time at which the next report is forgotten; infinite without one."""
        return min((report.until for report in self._reports.values()), default=float("inf"))

    def _of(self, endpoint: bytes) -> list[_Report]:
        return [found for version in (4, 6) if (found := self._reports.get((endpoint, version))) is not None]

    def _is_good(self, address: str, reports: list[_Report]) -> bool:
        known = sum(report.is_known for report in reports)
        networks = {report.network for report in reports if report.is_known}
        strangers = {report.network for report in reports if not report.is_known} - networks
        if not known or known + len(strangers) >= 2:
            return known > 0
        seen = _parse(address)
        return seen is not None and self._relay_hosts.get(seen[0].version) == str(seen[0])


def is_outside(host: IpAddress, reporter: str) -> bool:
    """Return whether a daemon can have this outside address for a reporter at ``ip:port`` (empty if unknown)."""
    if (
        host.is_loopback
        or host.is_link_local
        or host.is_multicast
        or host.is_unspecified
        or any(host in network for network in _UNUSED)
    ):
        return False
    return not _is_private(host) or ((seen := _parse(reporter)) is not None and _is_private(seen[0]))


def join(host: IpAddress, port: int) -> str:
    """Return ``ip:port``, with brackets around an IPv6 address."""
    return f"{host}:{port}" if host.version == 4 else f"[{host}]:{port}"


def _is_private(host: IpAddress) -> bool:
    return any(host in network for network in _PRIVATE)


def _parse(address: str) -> tuple[IpAddress, int] | None:
    """Return IP address and port of ``ip:port``; None if it is none."""
    if len(address) > _LONGEST:
        return None
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        return None
    return parsed, int(port)
