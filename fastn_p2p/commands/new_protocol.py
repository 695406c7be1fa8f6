from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import HomeOption
from ..terminal import put, say


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The protocol's name, for instance PhotoBox.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIRECTORY", help="Where to write it.  [default: photo-box-protocol]"),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write a package for a protocol of your own.

    It is complete and tested: install it, try it, and change it into what you need.
    """
    from fastn_p2p_actors.protocols import installed

    from ..exits import Misused
    from ..skeleton import names_for, write

    names = names_for(name)
    if names.protocol in installed():
        raise Misused(f"a protocol {names.protocol} is installed already: choose another name")
    where = directory or Path(names.distribution)
    write(names, where)
    put(str(where))
    say(
        f"now install it where the daemon is (`pip install -e {where}`), "
        f"then `fastn-p2p add-protocol IDENTITY --protocol {names.protocol}`"
    )
