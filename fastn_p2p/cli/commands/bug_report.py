from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, put_raw, write_message
from ...console.parameters import Option


def run(
    output: Annotated[
        Path | None, Option("--output", metavar="FILE", help="File of the report. By default in this directory.")
    ] = None,
    local: Annotated[bool, Option("--local", help="Leave out the network, which `netcheck` checks.")] = False,
    force: Annotated[bool, Option("--force", help="Replace the file if it exists.")] = False,
    yes: Annotated[bool, Option("--yes", help="Write the file without showing it.")] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a report for whoever is asked for help: versions, doctor, settings, status and logs in one text file.

    Shows it first, and asks. Without secrets and messages. Names, ID52s and addresses are replaced by words such as
    <peer-1>; the head of the report says what is in it. Also works without a running daemon.
    """
    import time

    from fastn_p2p_client.home import Home
    from fastn_p2p_client.plain_text import plain_lines

    from ...console.backup_files import check_new, new_private_file
    from ...console.confirmation import can_confirm
    from ...console.exit_codes import CommandLineError, ExitCode
    from ...console.output import confirmed, write_result
    from ..bug_report.report_text import make_report

    if not yes and not can_confirm():
        raise CommandLineError("the report is shown before it is written. Add --yes where there is no terminal")
    file = output or Path(time.strftime("fastn-p2p-report-%Y%m%d-%H%M%S.txt", time.gmtime()))
    check_new(file, force=force)
    report = plain_lines(make_report(Home.find(home), network=not local)).encode("utf-8", "backslashreplace")
    if not yes:
        put_raw(report)
        if not confirmed(f"Write this to {file}?"):
            write_message("Nothing was written.")
            raise SystemExit(ExitCode.INTERRUPTED)
    with new_private_file(file, force=force) as target, open(target, "wb", closefd=False) as opened:
        opened.write(report)
    if json:
        put_json({"file": str(file)})
    else:
        write_result(str(file))
