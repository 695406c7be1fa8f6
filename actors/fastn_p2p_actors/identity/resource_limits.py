"""Resource limits of an identity's process, and of processes that its protocols start.

Memory, file sizes and descriptors are limits of setrlimit(2), which child processes inherit. They can change while the
process runs. The supervisor counts the processes. The kernel's own limit counts all processes of the user, so a busy
desktop would keep an idle identity from starting one.
"""

from __future__ import annotations

import resource
from typing import Final

from fastn_p2p_client.ipc.messages import IdentityLimits

from ..runtime.actor import ActorContext
from ..runtime.process_setup import MAX_FILES

DEFAULT_PROCESSES: Final = 256
"""Processes that protocol code may have, unless the owner has set a limit."""
LEAST: Final = IdentityLimits(memory=64 * 1024 * 1024, processes=1, file_size=64 * 1024, open_files=64)
"""Least limits with which an identity's process can do its own work."""


def memory_limit(limits: IdentityLimits, default: int) -> int:
    """Return the bytes of data that the process may have; 0 for no limit."""
    return default if limits.memory is None else limits.memory


def apply_limits(context: ActorContext, limits: IdentityLimits, default_memory: int) -> None:
    """Apply the limits to this process. Hard limits from the daemon's start stay."""
    _set(resource.RLIMIT_DATA, memory_limit(limits, default_memory))
    _set(resource.RLIMIT_FSIZE, limits.file_size or 0)
    _set(resource.RLIMIT_NOFILE, limits.open_files or MAX_FILES)
    context.limit_processes(DEFAULT_PROCESSES if limits.processes is None else limits.processes)


def _set(kind: int, most: int) -> None:
    """Set a soft limit; 0 for as much as the hard limit allows."""
    _, hard = resource.getrlimit(kind)
    wanted = most or resource.RLIM_INFINITY
    if hard != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > hard):
        wanted = hard
    resource.setrlimit(kind, (wanted, hard))
