"""Routes of this machine to others, as the kernel lists them."""

from __future__ import annotations

from pathlib import Path


def has_network(proc: Path = Path("/proc/net")) -> bool:
    """Return whether the kernel would send anything beyond this machine; True when it cannot be asked.

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
    except OSError:  # the kernel has no IPv6
        return False
    return any(fields and fields[-1] != "lo" and not fields[0].startswith(("fe80", "ff")) for fields in routes)
