from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message
from ...console.parameters import Option

_SPECIAL_VALUES = "0: no limit. `default`: the limit of the daemon."


def run(
    name: NameArgument,
    max_memory: Annotated[
        str | None,
        Option(metavar="SIZE", help=f"Private memory of each process, as 500M or 2G. {_SPECIAL_VALUES}"),
    ] = None,
    max_processes: Annotated[
        str | None, Option(metavar="N", help=f"Processes that its protocols run at a time. {_SPECIAL_VALUES}")
    ] = None,
    max_file_size: Annotated[
        str | None, Option(metavar="SIZE", help=f"Size of a written file. {_SPECIAL_VALUES}")
    ] = None,
    max_open_files: Annotated[
        str | None, Option(metavar="N", help=f"Open files and connections of each process. {_SPECIAL_VALUES}")
    ] = None,
    listed: Annotated[
        bool | None,
        Option(
            "--listed/--unlisted",
            help="Publish to directories and the LAN where it is reached, so that its ID52 suffices to call it.",
        ),
    ] = None,
    idle: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Time without use after which it falls asleep until it is called, as 90s, 15m or 2h; `off`: never.",
        ),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Set resource limits for an identity's protocols, whether it is published, and when it falls asleep.

    Changes apply at once, without a restart, and after every later start. Options that are not given change nothing.
    """
    from fastn_p2p_client.ipc.messages import SetIdle, SetLimits, SetListed

    from ...console.control_request import request_daemon
    from ...console.exit_codes import CommandLineError
    from ...console.json_values import size_argument

    given = {
        "memory": max_memory,
        "processes": max_processes,
        "file_size": max_file_size,
        "open_files": max_open_files,
    }
    limits = {
        limit: -1 if text == "default" else size_argument(text, _option(limit))
        for limit, text in given.items()
        if text is not None
    }
    changes: list[tuple[SetLimits | SetListed | SetIdle, str]] = []
    if limits:
        changes.append((SetLimits(name, **limits), f"Changed the limits of {name}."))
    if listed is not None:
        done = "listed: its record is published" if listed else "unlisted: its record is withdrawn"
        changes.append((SetListed(name, listed), f"{name} is {done}."))
    if idle is not None:
        seconds = _idle_seconds(idle)
        done = f"falls asleep after {idle} without use" if seconds else "is always awake"
        changes.append((SetIdle(name, seconds), f"{name} {done}."))
    if not changes:
        options = "--listed", "--unlisted", "--idle", *map(_option, given)
        raise CommandLineError(f"nothing to change. Give {', '.join(options)}")
    for request, message in changes:
        info = request_daemon(home, request).identity
        if not json:
            write_message(message)
        elif request is changes[-1][0]:
            put_json(info)


def _option(limit: str) -> str:
    return f"--max-{limit.replace('_', '-')}"


def _idle_seconds(text: str) -> int:
    from fastn_p2p_actors.daemon_settings.idle_time import parse_idle_time

    from ...console.exit_codes import CommandLineError

    try:
        return parse_idle_time(text)
    except ValueError as error:
        raise CommandLineError(f"--idle: {error}") from None
