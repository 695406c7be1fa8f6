from __future__ import annotations

from typing import Annotated, Final

from ...console.options import HomeOption
from ...console.output import end_with_reader, put_json, put_raw, write_message
from ...console.parameters import Option

_PROCESSES: Final = ("supervisor", "vault", "network", "gateway")
"""Processes of every daemon: one that has had nothing to say has no log."""
_FOLLOWED: Final = 10
"""Records before the present that ``--follow`` shows."""


def run(
    actor: Annotated[
        list[str] | None,
        Option("--actor", metavar="NAME", help="Only this process or identity, such as network. Can be repeated."),
    ] = None,
    since: Annotated[
        str,
        Option(
            "--since",
            metavar="TIME",
            help="Only lines after this time: 30m, 12h, 7d, or 2026-01-31T12:00 (UTC).",
            show_default=False,
        ),
    ] = "",
    level: Annotated[str, Option("--level", metavar="LEVEL", help="Lowest level, such as WARNING.")] = "DEBUG",
    request: Annotated[
        str, Option("--request", metavar="ID", help="Only lines about the call with this request id.")
    ] = "",
    lines: Annotated[
        int | None, Option("--lines", "-n", metavar="N", help="Only the last N lines. With --follow: 10.")
    ] = None,
    follow: Annotated[bool, Option("--follow", "-f", help="Wait for further lines, until Ctrl-C.")] = False,
    json: Annotated[bool, Option("--json", help="Print each line as JSON.")] = False,
    home: HomeOption = None,
) -> None:
    """Show the logs of all processes in the order of time.

    Reads the files in `logs/` of the home, whether the daemon runs or not.
    """
    from collections import deque
    from collections.abc import Iterable

    from fastn_p2p_client.home import Home
    from fastn_p2p_client.plain_text import plain, plain_lines

    from ...console.exit_codes import CommandFailed, CommandLineError, ExitCode
    from ..audit_reader import parse_since
    from ..log_reader import LogRecord, LogSelection, follow_records, parse_level, read_records

    if lines is not None and lines < 0:
        raise CommandLineError("--lines must be 0 or more")
    place = Home.find(home)
    directory = place.logs
    wanted = LogSelection(tuple(actor or ()), parse_since(since), parse_level(level), request)
    shown = 0

    def show(records: Iterable[LogRecord]) -> None:
        nonlocal shown
        for each in records:
            shown += 1
            if json:
                put_json(each)
                continue
            about = f"[{each.request_id}]" if each.request_id else ""
            text = plain(f"{each.time} {each.level} {each.actor} {each.logger}{about}: {each.message}")
            trace = f"{plain_lines(each.trace)}\n" if each.trace else ""
            put_raw(f"{text}\n{trace}".encode("utf-8", "backslashreplace"))

    most = lines if lines is not None or not follow or since else _FOLLOWED
    if follow:
        end_with_reader()
        followed = follow_records(directory, wanted)
        if most is not None:
            before = deque(read_records(directory, wanted), most)
            show(before)
            last = before[-1].time if before else ""
            skipped = (each for each in followed if each.time > last)
            show(skipped)
        show(followed)
    records = read_records(directory, wanted)
    show(records if most is None else deque(records, most))
    if shown:
        return
    if not (written := sorted(file.stem for file in directory.glob("*.log"))):
        raise CommandFailed(
            f"there are no logs in {directory}: no daemon has run with this home. Start one: fastn-p2p daemon",
            ExitCode.NOT_FOUND,
            "no-logs",
            directory=str(directory),
        )
    known = {*written, *_PROCESSES, *(each.name for each in place.identities.glob("*"))}
    for name in wanted.actors:
        if not any(map(LogSelection((name,)).has_actor, known)):
            raise CommandFailed(
                f"there is no process or identity {name!r}. There are: {', '.join(sorted(known))}",
                ExitCode.NOT_FOUND,
                "no-logs",
                directory=str(directory),
            )
    write_message(f"There is no such line in {directory}")
