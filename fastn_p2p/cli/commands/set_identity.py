from __future__ import annotations

from typing import Annotated

import typer

from ...console.options import (
    HomeOption,
    JsonOption,
    NameArgument,
)
from ...console.output import (
    put_json,
    write_message,
)

_WHAT = "0 for no limit, `default` for what the daemon has otherwise."


def run(
    name: NameArgument,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help=f"Private memory of each of its processes, as 500M or 2G; {_WHAT}"),
    ] = None,
    max_processes: Annotated[
        str | None, typer.Option(metavar="N", help=f"Processes that its protocols may have started at a time; {_WHAT}")
    ] = None,
    max_file_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help=f"Size of a file that is written; {_WHAT}")
    ] = None,
    max_open_files: Annotated[
        str | None, typer.Option(metavar="N", help=f"Open files and connections of each process; {_WHAT}")
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Limit what the protocols of an identity may use.

    It holds at once, without a restart, and for every later start. What is not given stays as it is.
    """
    from fastn_p2p_client.ipc.messages import (
        SetLimits,
    )

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
        what: -1 if text == "default" else size_argument(text, _option(what))
        for what, text in given.items()
        if text is not None
    }
    if not limits:
        raise CommandLineError(f"there is nothing to change: give {', '.join(map(_option, given))}")
    info = request_daemon(home, SetLimits(name, **limits)).identity
    if json:
        put_json(info)
    else:
        write_message(f"Changed the limits of {name}.")


def _option(what: str) -> str:
    return f"--max-{what.replace('_', '-')}"
