from __future__ import annotations

import enum
from typing import Annotated

import typer

from ...console.exit_codes import ExitCode
from ...console.options import HomeOption


class Network(enum.StrEnum):
    LOCAL = "local"
    INTERNET = "internet"


def run(
    home: HomeOption = None,
    network: Annotated[
        Network,
        typer.Option(
            envvar="FASTN_NETWORK",
            show_envvar=False,
            help="local: only this machine. internet: also relays and discovery.  [env: FASTN_NETWORK]",
        ),
    ] = Network.INTERNET,
    memory: Annotated[
        int,
        typer.Option(
            metavar="MIB",
            min=0,
            envvar="FASTN_MEMORY",
            show_envvar=False,
            help="Memory limit for the protocols of one identity. 0: no limit.  [env: FASTN_MEMORY]",
        ),
    ] = 2048,
    connections: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            min=1,
            envvar="FASTN_CONNECTIONS",
            show_envvar=False,
            help="Most connections of one program to each process of the daemon.  [env: FASTN_CONNECTIONS]",
        ),
    ] = 128,
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM."""
    from fastn_p2p_client.home import Home
    from fastn_p2p_supervisor.actor_specs import DaemonConfig
    from fastn_p2p_supervisor.daemon import EXIT_FAILED
    from fastn_p2p_supervisor.daemon import run as run_daemon

    plan = DaemonConfig(identity_memory=memory * 1024 * 1024, program_connections=connections)
    code = run_daemon(Home.find(home), network.value, plan)
    raise typer.Exit(ExitCode.DAEMON if code == EXIT_FAILED else code)
