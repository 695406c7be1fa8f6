from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.formatting import utc_time
from ....console.options import EventsOption, FilesInstanceOption, HomeOption, OwnerOption
from ....console.output import is_terminal, put_json, table, write_message
from ....console.parameters import Argument

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient
    from ....protocols.files.messages import OfferedEntry, OfferSummary


def run(
    offer: Annotated[
        str | None,
        Argument(metavar="[ID]", help="Show all entries of this offer.", show_default=False, complete="offer"),
    ] = None,
    instance: FilesInstanceOption = "default",
    identity: OwnerOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """List the files that peers have offered.

    Columns: ID, sender, state, number of files, size in bytes, time (UTC) and names. Names are all hidden, executable
    and odd ones, then those at the top level; a terminal shows the first of them. With an ID, the columns are kind,
    size, time, mode, risks and path of each entry. Columns are separated by tabs when piped; --json shows everything.
    """
    from ....protocols.files.cli import with_own_files
    from ....protocols.files.errors import FileError

    async def show(files: FilesClient) -> None:
        offers = [each for each in await files.offers() if offer in (None, each.id)]
        if offer is not None and not offers:
            raise FileError("OfferUnknown", f"there is no offer {offer}; list them: fastn-p2p files offers")
        if json:
            for each in offers:
                put_json(await _whole(files, each))
        elif offer is not None:
            _show_contents(offers[0], [entry async for entry in files.contents(offer)])
        else:
            await _show_all(files, offers)

    with_own_files(home, identity, instance, show)


async def _whole(files: FilesClient, offer: OfferSummary) -> dict[str, object]:
    """Return an offer with all its entries, for JSON."""
    from msgspec import to_builtins

    whole: dict[str, object] = to_builtins(offer)
    whole["entries"] = [to_builtins(entry) async for entry in files.contents(offer.id)]
    return whole


async def _show_all(files: FilesClient, offers: list[OfferSummary]) -> None:
    rows = []
    for each in offers:
        names = each.examples
        whole = each.state == "waiting" and not is_terminal()
        if each.flagged or whole:
            entries = [entry async for entry in files.contents(each.id)]
            tops = [entry.path.partition("/")[0] for entry in entries] if whole else each.examples
            names = list(dict.fromkeys([*(entry.path for entry in entries if entry.risks), *tops]))
        rows.append(
            (
                each.id,
                each.name or each.peer,
                each.state,
                str(each.files),
                str(each.bytes),
                utc_time(each.created),
                ", ".join(names),
            )
        )
    table(("ID", "FROM", "STATE", "FILES", "SIZE", "SINCE", "NAMES"), rows, paged=True)
    if not offers:
        write_message("No offers.")
    for each in offers:
        if each.failed and each.state == "accepted":
            write_message(f"Offer {each.id}: {each.failed} of its files were declined when it was sent.")
        if each.flagged and each.state in ("waiting", "accepted") and not each.hidden:
            write_message(f"Offer {each.id}: {each.flagged} hidden, executable or odd names must be accepted by name.")
    if any(each.state == "waiting" for each in offers):
        write_message("List all entries of an offer: fastn-p2p files offers ID")


def _show_contents(offer: OfferSummary, entries: list[OfferedEntry]) -> None:
    rows = [
        (
            entry.kind,
            str(entry.size) if entry.kind == "file" else "-",
            utc_time(entry.mtime_ns // 1_000_000_000),
            f"{entry.mode:04o}",
            ",".join([*entry.risks, *(["accepted"] if entry.accepted else [])]) or "-",
            entry.path,
        )
        for entry in entries
    ]
    write_message(
        f"Offer {offer.id} of {offer.name or offer.peer} is {offer.state}: {offer.files} files, {offer.bytes} bytes"
    )
    table(("KIND", "SIZE", "CHANGED", "MODE", "RISKS", "PATH"), rows, paged=True)
    if any(entry.risks and not entry.accepted for entry in entries):
        write_message(
            f"Entries with risks must be accepted by name: fastn-p2p files accept {offer.id} PATH... --hidden"
        )
