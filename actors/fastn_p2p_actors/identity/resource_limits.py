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
from ..runtime.process_setup import MAX_FILES, set_soft_limit

DEFAULT_PROCESSES: Final = 256
"""Processes that protocol code may have, unless the owner has set a limit."""
LEAST: Final = IdentityLimits(memory=64 * 1024 * 1024, processes=1, file_size=64 * 1024, open_files=64)
"""Least limits with which an identity's process can do its own work."""


def memory_limit(limits: IdentityLimits, default: int) -> int:
    """Return the bytes of data that the process may have; 0 for no limit."""
    return default if limits.memory is None else limits.memory


def process_limit(limits: IdentityLimits) -> int:
    """Return the processes that protocol code may have; 0 for no limit."""
    return DEFAULT_PROCESSES if limits.processes is None else limits.processes


def apply_limits(context: ActorContext, limits: IdentityLimits, default_memory: int) -> None:
    """Apply the limits to this process. Hard limits from the daemon's start stay."""
    set_soft_limit(0, resource.RLIMIT_DATA, memory_limit(limits, default_memory))
    set_soft_limit(0, resource.RLIMIT_FSIZE, limits.file_size or 0)
    set_soft_limit(0, resource.RLIMIT_NOFILE, limits.open_files or MAX_FILES)
    context.limit_processes(process_limit(limits))
