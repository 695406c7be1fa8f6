from __future__ import annotations

from typing import Annotated

import typer

from ...console.options import (
    HomeOption,
    JsonOption,
)


def run(
    json: JsonOption = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show it again every second, until Ctrl-C or q; arrow keys and PgUp, PgDn, Home, End scroll.",
        ),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Show what the daemon does.

    Its processes, identities, protocols, peers and connections, and what is wrong. When the gateway does not
    answer, only the processes are shown, and the exit code is 3.
    """
    from ..status.collect import (
        show,
        show_forever,
    )

    if watch:
        show_forever(home, json=json)
    else:
        raise typer.Exit(show(home, json=json))
