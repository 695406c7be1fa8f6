"""Routing tables of the kernel."""

from __future__ import annotations

from pathlib import Path


def has_network(proc: Path = Path("/proc/net")) -> bool:
    """Return whether the kernel has a route to another machine; True if the tables cannot be read.

    The tables are those of proc_net(5): a header and ``Iface Destination …``; for IPv6 the destination first and the
    device last.
    """
    try:
        routes = [line.split() for line in (proc / "route").read_text().splitlines()[1:]]
    except OSError:
        return True
    if any(fields and fields[0] != "lo" for fields in routes):
        return True
    try:
        routes = [line.split() for line in (proc / "ipv6_route").read_text().splitlines()]
    except OSError:  # kernel without IPv6
        return False
    return any(fields and fields[-1] != "lo" and not fields[0].startswith(("fe80", "ff")) for fields in routes)
