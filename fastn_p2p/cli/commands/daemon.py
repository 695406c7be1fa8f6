from __future__ import annotations

import enum
from typing import Annotated, Any

from ...console.options import ErrorsOption, HomeOption
from ...console.parameters import Option
from ...console.passphrases import PassphraseFileOption


class NetworkOption(enum.StrEnum):
    LOCAL = "local"
    LAN = "lan"
    INTERNET = "internet"


def run(
    home: HomeOption = None,
    network: Annotated[
        NetworkOption | None,
        Option(
            help="local: only this machine. lan: also the local network. internet: also relays and directories.  "
            "[env: FASTN_NETWORK; default: internet]",
        ),
    ] = None,
    relay: Annotated[
        list[str] | None,
        Option(
            metavar="URL",
            help="Relay to use in place of the default ones; repeatable. `none`: no relay.  [env: FASTN_RELAYS]",
        ),
    ] = None,
    directory: Annotated[
        list[str] | None,
        Option(
            metavar="URL",
            help="Directory to use in place of the default one; repeatable. `none`: no directory.  "
            "[env: FASTN_DIRECTORIES]",
        ),
    ] = None,
    lan: Annotated[
        bool | None,
        Option("--lan/--no-lan", help="Find peers on the local network.  [env: FASTN_LAN; default: lan]"),
    ] = None,
    memory: Annotated[
        int | None,
        Option(
            metavar="MIB",
            min=0,
            help="Memory limit for the protocols of one identity. 0: no limit.  [env: FASTN_MEMORY; default: 2048]",
        ),
    ] = None,
    connections: Annotated[
        int | None,
        Option(
            metavar="NUMBER",
            min=1,
            help="Most connections of one program to each process of the daemon.  "
            "[env: FASTN_CONNECTIONS; default: 128]",
        ),
    ] = None,
    sandbox: Annotated[
        bool | None,
        Option(
            "--sandbox/--no-sandbox",
            help="Confine each process to what it needs or was granted.  [env: FASTN_SANDBOX; default: sandbox]",
        ),
    ] = None,
    idle: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Time without use after which new identities fall asleep, as 15m.  [env: FASTN_IDLE; default: off]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        Option(
            metavar="ADDRESS",
            help="Serve /metrics for Prometheus: HOST:PORT on loopback, or unix:PATH.  [env: FASTN_METRICS]",
        ),
    ] = None,
    worker_listen: Annotated[
        str | None,
        Option(
            metavar="ADDRESS",
            help="Let workers on other machines connect, by TLS: HOST:PORT.  [env: FASTN_WORKER_LISTEN]",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        Option(
            metavar="LEVEL",
            help="Lowest level of log lines: DEBUG, INFO, WARNING, ERROR.  [env: FASTN_LOG; default: INFO]",
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        Option(
            metavar="FORMAT",
            help="Format of the log files: text, or json for programs.  [env: FASTN_LOG_FORMAT; default: text]",
        ),
    ] = None,
    separate_users: Annotated[
        str | None,
        Option(
            metavar="USERS",
            envvar="FASTN_SEPARATE_USERS",
            show_envvar=False,
            help="As root: give each process a user of its own. `default`, or some of vault=USER, network=USER, "
            "gateway=USER, identities=FIRST-LAST, programs=GROUP, with commas.  [env: FASTN_SEPARATE_USERS]",
        ),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    json: ErrorsOption = False,
) -> Any:
    """Run the daemon until Ctrl-C or SIGTERM.

    Options come before environment variables, and these before `config.toml` in the home; see `fastn-p2p config`.
    If the keys are encrypted, it asks for the passphrase on a terminal. Elsewhere, without --passphrase-file, it starts
    locked: see `fastn-p2p vault`.
    """
    from fastn_p2p_actors.daemon_settings.idle_time import parse_idle_time
    from fastn_p2p_actors.daemon_settings.resolution import warnings_of
    from fastn_p2p_client.home import Home
    from fastn_p2p_supervisor.home_format import check_format

    from ...console.daemon_settings import resolve
    from ...console.output import write_problem
    from ...console.supervisor_start import SupervisorOrder
    from ...console.users_at_start import separate
    from ...console.vault_at_start import unlock_at_start

    given = {
        "network.mode": network and network.value,
        "network.relays": relay,
        "network.directories": directory,
        "network.lan": lan,
        "limits.memory": memory,
        "limits.connections": connections,
        "limits.sandbox": sandbox,
        "identities.idle": idle,
        "metrics.address": metrics,
        "worker.listen": worker_listen,
        "log.level": log_level and log_level.upper(),
        "log.format": log_format and log_format.lower(),
    }
    found = Home.find(home)
    check_format(found)  # first: a newer version may have settings and slots that this one rejects with other words
    resolved = resolve(found, {key: value for key, value in given.items() if value is not None})
    for warning in warnings_of(resolved):
        write_problem(warning)
    users = separate(found, separate_users) if separate_users else None
    page = unlock_at_start(found, passphrase_file)
    limits = resolved.settings.limits
    return SupervisorOrder(
        home=str(found.path),
        network=resolved.settings.network,
        identity_memory=limits.memory * 1024 * 1024,
        program_connections=limits.connections,
        sandbox=limits.sandbox,
        fixed_settings=resolved.fixed,
        vault_page=-1 if page is None else page,
        log_level=resolved.settings.log.level,
        log_format=resolved.settings.log.format,
        metrics=resolved.settings.metrics.address,
        worker_address=resolved.settings.worker.listen,
        idle=parse_idle_time(resolved.settings.identities.idle),
        users=users,
    )
