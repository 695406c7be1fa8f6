"""Checks of UDP: whether it gets out and back, which addresses this machine has, and what kind of NAT it is behind."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import time
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from fastn_p2p_client.ipc.messages import Status

from .check import OFF, OK, PROBLEM, UNKNOWN, Check
from .time_limit import LIMIT, DnsTimeout, find_addresses, run_in_thread

_DISCOVERY_PORT: Final = 7842
"""UDP port of a relay's QUIC address discovery."""
_TRIES: Final = (0.5, 1.0, 1.5)
"""Seconds to wait for the answer to each probe."""
_NO_VERSION: Final = bytes.fromhex("0a1a2a3a")
"""Version that no QUIC server speaks (RFC 9000, section 15): each answers with those that it speaks."""
_PROBE_BYTES: Final = 1200
"""Bytes of a probe. A server ignores shorter ones (RFC 9000, section 14.1)."""
_ANY_V4: Final = "192.0.2.1"
_ANY_V6: Final = "2001:db8::1"
"""Addresses for documentation. Nothing is sent there: the kernel is asked for the route."""


async def check_udp(relays: Sequence[str], status: Status | None, seconds: float = LIMIT) -> Check:
    """Check that datagrams get out and back: by a direct connection, or by asking the relays' address discovery.

    It has an answer within so many seconds.
    """
    for each in status.connections if status is not None else []:
        if each.path == "direct" and not _ip(each.address).is_loopback:
            return Check(name="UDP", state=OK, text=f"works: there is a direct connection to {each.address}")
    if not relays:
        text = "no relay is in use, and there is no direct connection to another machine: nothing could be asked"
        return Check(name="UDP", state=UNKNOWN, text=text)
    answers = await asyncio.gather(*(run_in_thread(_probe, url, seconds=seconds, otherwise=None) for url in relays))
    times = [each for each in answers if isinstance(each, float)]
    if times:
        text = f"works: {len(times)} of {len(relays)} relays answer over UDP"
        return Check(name="UDP", state=OK, text=text, ms=min(times))
    if all(isinstance(each, OSError) for each in answers):
        reason = "DNS does not answer" if isinstance(answers[0], DnsTimeout) else "no relay's name is found in DNS"
        return Check(name="UDP", state=UNKNOWN, text=f"{reason}, so none could be asked over UDP")
    if not any(url.startswith("https:") for url in relays):
        text = "a relay without TLS need not answer over UDP, and none of these does"
        return Check(name="UDP", state=UNKNOWN, text=text)
    text = f"no relay answers at UDP port {_DISCOVERY_PORT}, so peers are reached through relays only"
    advice = "allow outgoing UDP in the firewall of this machine and of the network"
    return Check(name="UDP", state=PROBLEM, text=text, advice=advice)


def _probe(url: str) -> float | OSError | None:
    try:
        return probe_quic((urlsplit(url).hostname or "").rstrip("."), _DISCOVERY_PORT)
    except OSError as error:
        return error


def probe_quic(host: str, port: int) -> float | None:
    """Return the milliseconds until a QUIC server answers a version that it does not speak; None without an answer.

    Blocks: call it in a thread.

    Raises:
        OSError: the name of the host is not found, or DNS does not answer.
    """
    found = find_addresses(host, port, socket.SOCK_DGRAM)
    own = secrets.token_bytes(8)
    packet = b"\xc0" + _NO_VERSION + b"\x08" + secrets.token_bytes(8) + b"\x08" + own
    packet = packet.ljust(_PROBE_BYTES, b"\0")
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as sock:
            for seconds in _TRIES:
                sock.settimeout(seconds)
                began = time.perf_counter()
                try:
                    sock.connect(address)
                    sock.send(packet)
                    if _is_answer(sock.recv(2048), own):
                        return round((time.perf_counter() - began) * 1000, 3)
                except OSError:
                    continue
    return None


def _is_answer(data: bytes, own: bytes) -> bool:
    """Return whether this is a Version Negotiation packet (RFC 9000, section 17.2.1) for our connection id."""
    return len(data) > 6 and bool(data[0] & 0x80) and data[1:5] == bytes(4) and data[6 : 6 + data[5]] == own


def check_addresses(status: Status | None, mode: str, seen_as: Collection[str] = ()) -> list[Check]:
    """Return checks of the addresses at which peers may reach this machine, and of its NAT.

    Args:
        seen_as: IP addresses from which requests of this machine come, as relays say.
    """
    if mode == "local":
        text = "network mode local uses the loopback addresses only: no other machine reaches this one"
        return [Check(name="addresses", state=OFF, text=text, advice="start the daemon with --network internet")]
    own = [each for each in map(_route_address, (_ANY_V4, _ANY_V6)) if each]
    listed = [each for each in status.addresses if "://" not in each] if status is not None else []
    shown = [each for each in listed if not _ip(each).is_loopback] or own
    if not shown:
        text = "this machine has no address but those of loopback"
        return [Check(name="addresses", state=PROBLEM, text=text, advice="connect it to a network")]
    families = " and ".join(f"IPv{version}" for version in sorted({_ip(each).version for each in shown}))
    return [
        Check(name="addresses", state=OK, text=f"{families}: {', '.join(shown)}"),
        _nat(own, listed, seen_as, status),
    ]


def _nat(own: list[str], listed: list[str], seen_as: Collection[str], status: Status | None) -> Check:
    own_v4, seen = ({_ip(each) for each in group if _ip(each).version == 4} for group in (own, seen_as))
    public = own_v4 & seen or {each for each in own_v4 if each.is_global}
    if public:
        return Check(name="NAT", state=OK, text=f"none: this machine has the public IPv4 address {min(public)}")
    if not own_v4 and any(_ip(each) == _ip(other) for each in own for other in seen_as):
        return Check(name="NAT", state=OK, text="none: this machine has no IPv4, and its IPv6 address is seen outside")
    outside = sorted({each for each in listed if _ip(each).version == 4 and (_ip(each).is_global or _ip(each) in seen)})
    ports: dict[str, set[str]] = {}
    for each in outside:
        ports.setdefault(each.rpartition(":")[0], set()).add(each.rpartition(":")[2])
    if any(len(each) > 1 for each in ports.values()):
        text = (
            f"seen from outside at several ports ({', '.join(outside)}): unless the router was told to open one of "
            "them, the mapping differs by destination, and peers behind such a NAT too need a relay"
        )
        return Check(name="NAT", state=OK, text=text)
    if outside:
        text = (
            f"seen from outside as {', '.join(outside)}; the kind is unknown until a second observer differs or agrees"
        )
        return Check(name="NAT", state=UNKNOWN, text=text)
    if seen:
        text = f"a relay sees this machine as {min(seen)}; the kind is unknown until a peer says how it sees it"
        return Check(name="NAT", state=UNKNOWN, text=text)
    missing = "no daemon is running" if status is None else "no relay and no peer has said how it sees this machine"
    return Check(name="NAT", state=UNKNOWN, text=f"the kind is unknown, because {missing}")


def check_port(port: int, status: Status | None) -> Check:
    """Name the UDP port, so that a firewall can be opened for it."""
    if status is None or not port:
        return Check(name="port", state=UNKNOWN, text="no daemon is running, so no port is open")
    if status.network_mode == "local":
        return Check(name="port", state=OFF, text=f"UDP port {port}, for this machine only in network mode local")
    incoming = [each for each in status.connections if not each.outgoing and each.path == "direct"]
    if any(not _ip(each.address).is_loopback for each in incoming):
        return Check(name="port", state=OK, text=f"peers reach UDP port {port} directly")
    text = f"UDP port {port}; no peer of another machine has connected to it directly so far"
    advice = f"if peers only reach you through relays, allow UDP port {port} in the firewall"
    return Check(name="port", state=OK, text=text, advice=advice)


def _route_address(destination: str) -> str:
    """Return the address from which packets to ``destination`` would leave; empty without a route."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((destination, 9))
            address = str(sock.getsockname()[0])
    except OSError:
        return ""
    return "" if _ip(address).is_loopback else address


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IP address in ``ip``, ``ip:port`` or ``[ip]:port``."""
    host = address.rpartition(":")[0].strip("[]") if "." in address or address.startswith("[") else address
    return ipaddress.ip_address((host if host else address).partition("%")[0])
