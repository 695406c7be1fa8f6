from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandLineError
from ....console.formatting import utc_time
from ....console.options import AsOption, EventsOption, FilesInstanceOption, HomeOption, PeerArgument
from ....console.output import put_json, table, write_message
from ....console.parameters import Argument

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient
    from ....protocols.files.messages import Entry


def run(
    peer: PeerArgument,
    path: Annotated[
        str,
        Argument(metavar="PATH", help="A directory or file of the peer.", show_default=False, complete="remote path"),
    ] = "",
    instance: FilesInstanceOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """List the files that a peer shares.

    Columns: kind, size in bytes, time of change (UTC) and name; separated by tabs when piped.
    """
    from ....protocols._shared.path_names import join_path
    from ....protocols.files.cli import with_files
    from ....protocols.files.errors import FileError
    from ....protocols.files.file_system.safe_paths import parts_of

    where = join_path(*(part for part in path.split("/") if part != "."))
    try:
        parts_of(where)
    except FileError as error:
        raise CommandLineError(str(error)) from None

    async def show(files: FilesClient) -> None:
        unnamed, named = 0, 0
        try:
            async for page in files.list(where):
                _show(page.entries, json=json)
                unnamed += page.unnamed
                for skipped in page.skipped:
                    write_message(f"{skipped.path}: {skipped.reason}")
                named += len(page.skipped)
        except FileError as error:
            if error.kind != "NotADirectory":
                raise
            entry = await files.stat(where)
            _show([_named(entry, where)], json=json)
        if unnamed > named:
            write_message(f"{unnamed - named} more entries have names that cannot be transferred")

    with_files(home, identity, peer, instance, show, quiet=json)


def _named(entry: Entry, path: str) -> Entry:
    from msgspec.structs import replace

    return replace(entry, path=path)


def _show(entries: list[Entry], *, json: bool) -> None:
    if json:
        if entries:
            put_json(*entries)
        return
    table(
        ("KIND", "SIZE", "CHANGED", "NAME"),
        [(each.kind, str(each.size) if each.kind == "file" else "-", _when(each), each.path) for each in entries],
    )


def _when(entry: Entry) -> str:
    return "-" if entry.kind == "other" else utc_time((entry.mtime_ns + entry.mtime_rest) // 1_000_000_000)
