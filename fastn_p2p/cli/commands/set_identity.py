from __future__ import annotations

from typing import Annotated

import typer

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message

_SPECIAL_VALUES = "0: no limit. `default`: the limit of the daemon."


def run(
    name: NameArgument,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help=f"Private memory of each process, as 500M or 2G. {_SPECIAL_VALUES}"),
    ] = None,
    max_processes: Annotated[
        str | None, typer.Option(metavar="N", help=f"Processes that its protocols run at a time. {_SPECIAL_VALUES}")
    ] = None,
    max_file_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help=f"Size of a written file. {_SPECIAL_VALUES}")
    ] = None,
    max_open_files: Annotated[
        str | None, typer.Option(metavar="N", help=f"Open files and connections of each process. {_SPECIAL_VALUES}")
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Set resource limits for an identity's protocols.

    The limits apply at once, without a restart, and after every later start. Options that are not given change nothing.
    """
    from fastn_p2p_client.ipc.messages import SetLimits

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
    if not limits:
        raise CommandLineError(f"nothing to change. Give {', '.join(map(_option, given))}")
    info = request_daemon(home, SetLimits(name, **limits)).identity
    if json:
        put_json(info)
    else:
        write_message(f"Changed the limits of {name}.")


def _option(limit: str) -> str:
    return f"--max-{limit.replace('_', '-')}"
