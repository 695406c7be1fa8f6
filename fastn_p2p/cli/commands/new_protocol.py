from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, write_lines, write_result
from ...console.parameters import Argument, Option


def run(
    name: Annotated[str, Argument(metavar="NAME", help="Name of the protocol, for example PhotoBox.")],
    directory: Annotated[
        Path | None,
        Option("--dir", metavar="DIRECTORY", help="Directory of the package.  [default: photo-box-protocol]"),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a package for a new protocol.

    The package is complete and has tests: install it, try it, then change it. Prints the command that installs it
    into the environment of the daemon.
    """
    from fastn_p2p_actors.installed_protocols import installed
    from fastn_p2p_client.home import Home

    from ...console.exit_codes import CommandLineError
    from ..protocol_template import names_for, write
    from ..python_environment import daemon_python, install_command

    names = names_for(name)
    if names.protocol in installed():
        raise CommandLineError(f"a protocol {names.protocol} is already installed. Choose another name")
    where = directory or Path(names.distribution)
    write(names, where)
    found = Home.find(home)
    install = install_command(daemon_python(found), where.absolute())
    if json:
        put_json({"directory": str(where), "protocol": names.protocol, "install": install})
        return
    write_result(str(where))
    identities = [each.name for each in found.identities.iterdir()] if found.identities.is_dir() else []
    identity = identities[0] if len(identities) == 1 else "IDENTITY"
    write_lines(
        "Install it and add it to an identity. The daemon finds it without a restart:\n"
        f"  {install}\n"
        f"  fastn-p2p add-protocol {identity} --protocol {names.protocol}"
    )
