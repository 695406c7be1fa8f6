"""Daemons in a host of the laboratory."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.namespace import Namespace
from tests.support.command_server import run_command
from tests.support.daemon_server import ForkedDaemon, is_forkable
from tests.support.daemons import CLI, DEADLINE, Daemon

__all__ = ["HostDaemon"]


class HostDaemon(Daemon):
    """A daemon, and its command line, in the network of one host.

    The local sockets of a daemon are files: ``client()`` and the client library reach them from the test's own process.
    """

    def __init__(self, namespace: Namespace, home: Path, hosts: Path, network: str, **env: str) -> None:
        super().__init__(home, hosts, FASTN_NETWORK=network, **env)
        self._prefix = namespace.prefix
        self._network = namespace.file
        self.command = [*self._prefix, *CLI, "daemon"]

    def fork(self, *arguments: str) -> ForkedDaemon:
        return ForkedDaemon(["daemon", *arguments], self.env, self._network)

    def cli(
        self, *arguments: str, input: str | None = None, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in the host, as a user types it."""
        if is_forkable(self.env):
            return run_command(arguments, self.env, input=input, timeout=timeout, network=self._network)
        return subprocess.run(
            [*self._prefix, *CLI, *arguments],
            env=self.env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
