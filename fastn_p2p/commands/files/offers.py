from __future__ import annotations

from datetime import UTC, datetime

import typer

from ...files.options import EventsOption, FilesOption, OwnerOption
from ...options import HomeOption
from ...terminal import put_json, say, table


def run(
    instance: FilesOption = "default",
    identity: OwnerOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """List what peers have offered.

    ID, from whom, state, number of files, size in bytes, time (UTC) and first names; with tabs between them when piped.
    """
    from ...files.command import refused, with_own_files
    from ...files.failures import FileError

    try:
        offers = with_own_files(home, identity, instance, lambda files: files.offers())
    except FileError as error:
        raise typer.Exit(refused(error)) from None
    if json:
        put_json(*offers)
        return
    table(
        ("ID", "FROM", "STATE", "FILES", "SIZE", "SINCE", "NAMES"),
        [
            (
                each.id,
                each.name or each.peer,
                each.state,
                str(each.files),
                str(each.bytes),
                datetime.fromtimestamp(each.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                ", ".join(each.examples),
            )
            for each in offers
        ],
    )
    if not offers:
        say("nobody has offered anything")
