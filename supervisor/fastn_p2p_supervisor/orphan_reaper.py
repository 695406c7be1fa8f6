"""Reaper of orphans: processes started by a protocol whose parent has ended.

The kernel makes them children of the supervisor, which kills them at its next tick. So no process that a protocol has
started outlives its identity's process, even if it left its parent's session and process group.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable

from fastn_p2p_actors.runtime import process_setup

from .descendants import children_of

log = logging.getLogger("supervisor")


class OrphanReaper:
    """Kills every child of this process except the fork server.

    It is inactive where this process has other children: after an ``exec`` it keeps those of the program before, and as
    process 1 of a container it gets all orphans of the container.
    """

    def __init__(self, fork_server: Callable[[], int]) -> None:
        """Become the subreaper of this process's descendants.

        Args:
            fork_server: return the pid of the fork server; 0 for none.
        """
        self._fork_server = fork_server
        self._reported: set[int] = set()
        self.active = os.getpid() != 1 and not children_of("self")
        if self.active:
            process_setup.become_subreaper()

    def reap(self) -> None:
        """Kill orphans, and reap those that have ended."""
        if not self.active:
            return
        for pid in children_of("self") - {self._fork_server()}:
            # A child keeps its pid until it has been waited for, so this kills no other process.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            if pid not in self._reported:
                self._reported.add(pid)
                log.warning("killed process %d, which a protocol left behind", pid)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._reported.discard(pid)
