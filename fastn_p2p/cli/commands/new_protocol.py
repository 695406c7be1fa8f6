from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...console.options import (
    HomeOption,
    identity_names,
)
from ...console.output import (
    say_lines,
    write_result,
)


def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The protocol's name, for instance PhotoBox.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIRECTORY", help="Where to write it.  [default: photo-box-protocol]"),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write a package for a protocol of your own.

    It is complete and tested: install it, try it, and change it into what you need. Prints how to install it where the
    daemon runs.
    """
    from fastn_p2p_actors.installed_protocols import installed
    from fastn_p2p_client.home import Home

    from ...console.exit_codes import CommandLineError
    from ..protocol_template import (
        names_for,
        write,
    )
    from ..python_environment import (
        daemon_python,
        install_command,
    )

    names = names_for(name)
    if names.protocol in installed():
        raise CommandLineError(f"a protocol {names.protocol} is installed already: choose another name")
    where = directory or Path(names.distribution)
    write(names, where)
    write_result(str(where))
    install = install_command(daemon_python(Home.find(home)), where.absolute())
    identities = identity_names(context, "")
    identity = identities[0] if len(identities) == 1 else "IDENTITY"
    say_lines(
        "now install it where the daemon is, and give it to an identity; the daemon finds it without a restart:\n"
        f"  {install}\n"
        f"  fastn-p2p add-protocol {identity} --protocol {names.protocol}"
    )
