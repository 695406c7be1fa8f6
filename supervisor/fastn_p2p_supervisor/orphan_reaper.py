"""Strays: processes that a protocol has started, and whose parent has ended.

The kernel makes them children of the supervisor, which kills them at its next look. So nothing that a protocol has
started outlives its identity's process, also when it has taken itself out of its parent's session and process group.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable

from fastn_p2p_actors.runtime import process_setup

from .descendants import children_of

__all__ = ["OrphanReaper"]

log = logging.getLogger("supervisor")


class OrphanReaper:
    """Those of this process, which has no children but the fork server.

    Where that is not so, nothing is adopted and nothing killed: a program that has become the daemon by ``exec`` keeps
    the children that it had, and process 1 of a container gets those of everybody else in it.
    """

    def __init__(self, fork_server: Callable[[], int]) -> None:
        """``fork_server``: its process id at the moment, 0 for none."""
        self._fork_server = fork_server
        self._reported: set[int] = set()
        self.active = os.getpid() != 1 and not children_of("self")
        if self.active:
            process_setup.become_subreaper()

    def reap(self) -> None:
        """Kills those that there are, and removes those that have ended."""
        if not self.active:
            return
        for pid in children_of("self") - {self._fork_server()}:
            # A child keeps its number until it has been waited for: this reaches nobody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            if pid not in self._reported:
                self._reported.add(pid)
                log.warning("process %d was left behind by a protocol: killed", pid)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._reported.discard(pid)
