"""Name of this machine, by which other daemons of an identity call this one."""

from __future__ import annotations

import re
import socket

from fastn_p2p_client.limits import MAX_NAME


def machine_name() -> str:
    """Return the name of this machine, as a name of a replica."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().lower()).strip("-_")
    return plain[:MAX_NAME] or "machine"
