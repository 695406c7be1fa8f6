from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption
from ....console.output import end_with_reader, put_json, write_message, write_result
from ....console.parameters import Option


def run(
    json: Annotated[bool, Option("--json", help="Print each line as JSON.")] = False,
    since: Annotated[
        str,
        Option(
            metavar="TIME",
            help="Only lines after this time: 30m, 12h, 7d, or 2026-01-31T12:00 (UTC).",
            show_default=False,
        ),
    ] = "",
    follow: Annotated[bool, Option("--follow", "-f", help="Wait for further lines, until Ctrl-C.")] = False,
    home: HomeOption = None,
) -> None:
    """Show the audit log: what was signed, who was let in, and which command changed what.

    Reads the files of the vault, whether the daemon runs or not. Prints time, actor, event, and details. The vault is
    the only process that writes them, and knows each actor by its key.
    """
    from fastn_p2p_client.home import Home
    from fastn_p2p_client.plain_text import plain

    from ...audit_reader import follow_lines, parse_since, read_lines

    if follow:
        end_with_reader()
    path = Home.find(home).audit_log
    earliest = parse_since(since)
    found = 0
    for line in follow_lines(path) if follow else read_lines(path):
        if str(line["time"]) < earliest:
            continue
        found += 1
        if json:
            put_json(line)
        else:
            write_result(plain(_text(line)))
    if not found:
        write_message(f"The audit log has no line{f' since {since}' if since else ''}: {path}")


def _text(line: dict[str, object]) -> str:
    rest = {name: value for name, value in line.items() if name not in ("time", "actor", "event")}
    shown = (
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in rest.items()
    )
    return "  ".join((str(line["time"]), str(line["actor"]), str(line["event"]), " ".join(shown))).rstrip()
