from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from ...console.exit_codes import EXITS, CommandLineError, ExitCode
from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, write_problem, write_result
from ...console.parameters import Option


def run(
    live: Annotated[
        bool,
        Option(
            "--live", help="Only check what a restart of the daemon may mend: not the vault's lock, not identities."
        ),
    ] = False,
    timeout: Annotated[float, Option("--timeout", metavar="SECONDS", help="Time for all of it.")] = 5.0,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Check whether the daemon is well, for containers and probes.

    Prints `ok`, with exit code 0. Otherwise one line says what is wrong. The exit code is 3 if the daemon does not run
    or one of its processes is not well, 6 if it did not answer in time, 15 if the vault is locked, and 11 if an
    identity keeps crashing.
    """
    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    problems = _find_problems(home, timeout, live)
    if json:
        put_json({"ok": not problems, "problems": [each._asdict() for each in problems]})
    elif problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        write_problem(f"{problems[0].text}{more}")
    else:
        write_result("ok")
    raise SystemExit(EXITS.get(problems[0].code, ExitCode.INTERNAL) if problems else ExitCode.OK)


class _Problem(NamedTuple):
    part: str
    code: str
    text: str


def _find_problems(home: Path | None, timeout: float, live: bool) -> list[_Problem]:
    from fastn_p2p_client.errors import DaemonBusy, P2PError
    from fastn_p2p_client.ipc.messages import GetHealth

    from ...console.control_request import request_daemon

    try:
        found = request_daemon(home, GetHealth(), timeout=timeout).problems
    except P2PError as error:
        return [_Problem("daemon", error.code, str(error))]
    return [_Problem(each.part, each.code, each.text) for each in found if not live or each.code == DaemonBusy.code]
