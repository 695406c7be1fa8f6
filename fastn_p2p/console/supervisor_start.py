"""Start of the supervisor in an interpreter that has loaded no command line.

Problem: as long as the daemon ran, its supervisor held the parser, the help and the reader of ``config.toml``, which
``fastn-p2p daemon`` needs for its first tenth of a second: 6.5 MB. Idea: the command reads its options and settings,
and asks for the passphrase. Then it restarts the program, with the result in an environment variable. The new program
keeps pid and command line, and takes nothing from the memory of the old one, also no passphrase.
``fastn_p2p.__main__`` sees the variable and loads only the supervisor.

Not covered: a daemon that has opened an encrypted vault. Until its first step, a program that begins may be looked into
by other processes of its user. So it is not restarted while it holds the descriptor of the vault's page.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_actors.runtime.log_files import FORMAT_VARIABLE, LEVEL_VARIABLE
from fastn_p2p_actors.runtime.process_setup import erase_variables, make_undumpable
from fastn_p2p_actors.runtime.separate_users import SeparateUsers

from .. import __version__
from .exit_codes import ExitCode
from .program_restart import SUPERVISOR_ORDER, restart_program


class SupervisorOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the command ``daemon``: all that the supervisor has to know."""

    home: str
    network: NetworkSection
    identity_memory: int
    program_connections: int
    sandbox: bool
    fixed_settings: tuple[str, ...]
    vault_page: int
    """Descriptor of the page with the vault's master key; -1 if the vault starts locked, or is not encrypted."""
    log_level: str
    log_format: str
    metrics: str
    """Address at which metrics are served; empty for none."""
    worker_address: str
    """Address at which workers on other machines connect; empty for none."""
    idle: int
    """Idle time of new identities in seconds; 0 for none."""
    users: SeparateUsers | None
    """Users of the processes; None to have one user for all."""

    def run(self, *, restart: bool = False) -> int:
        """Run the daemon, and return the exit code of the command.

        Args:
            restart: restart the program, which then runs the daemon, unless this process holds the vault's page.

        Raises:
            P2PError: the home cannot be used, or another daemon uses it.
        """
        if restart and self.vault_page < 0:
            os.environ[SUPERVISOR_ORDER] = msgspec.json.encode(self).decode()
            restart_program()
        from fastn_p2p_client.home import Home
        from fastn_p2p_supervisor.actor_specs import DaemonConfig
        from fastn_p2p_supervisor.daemon import EXIT_FAILED, run

        os.environ[LEVEL_VARIABLE] = self.log_level  # for all processes
        os.environ[FORMAT_VARIABLE] = self.log_format
        config = DaemonConfig(
            identity_memory=self.identity_memory,
            program_connections=self.program_connections,
            sandbox=self.sandbox,
            fixed_settings=self.fixed_settings,
            vault_page=self.vault_page,
            users=self.users,
            version=__version__,
            metrics=self.metrics,
            worker_address=self.worker_address,
            idle=self.idle,
        )
        code = run(Home(Path(self.home)), self.network, config)
        return ExitCode.DAEMON if code == EXIT_FAILED else code


def run_ordered() -> int:
    """Run the daemon by the order in the environment, and return the exit code of the command.

    Raises:
        P2PError: as ``SupervisorOrder.run``.
    """
    make_undumpable()  # first: the restart has reset it
    order = msgspec.json.decode(os.environ.pop(SUPERVISOR_ORDER), type=SupervisorOrder)
    erase_variables(SUPERVISOR_ORDER)
    return order.run()
