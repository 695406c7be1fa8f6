from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import JsonOption
from ...console.output import put_json, write_result
from ...console.parameters import Argument


def run(
    command: Annotated[
        list[str] | None,
        Argument(metavar="[COMMAND]...", help="Words of a command, such as `peer list`.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    Each line of its output validates, also an error. Without COMMAND, or with a group such as `peer`, prints an object
    with the schema of each command.
    """
    from msgspec.json import format

    from ...console.json_values import to_json
    from ..json_schema import schemas

    words = command or []
    found = schemas(words)
    if not found:
        raise CommandLineError(f"there is no command {' '.join(words)!r}: fastn-p2p --help")
    value = found.get(" ".join(words), found)
    if json:
        put_json(value)
    else:
        write_result(format(to_json(value)).decode())
