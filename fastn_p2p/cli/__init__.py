"""Command line: how a command runs.

- ``commands``: one module per command; ``command_groups`` imports it when it is used.
- ``plain_arguments``: reads the command line if it is complete and valid; ``typer_commands``: if it is not, and help.
- ``error_report``: how an error becomes a message and an exit code.
- ``completion``: words for the shell, without typer. ``manual``: manual pages, and a page of all commands.
- ``status``, ``netcheck``, ``doctor``, ``bug_report``, ``stream``: behind the commands of these names.
- ``protocol_list``, ``protocol_template``, ``python_environment``: behind ``protocol list`` and ``protocol new``.
- ``pairing``, ``qr_code``: behind ``pair`` and ``ticket``. ``trace_text``: the output of ``explain``.
- ``service_units``, ``service_options``: behind ``service``.
- ``vault_slots``, ``vault_text``, ``audit_reader``: behind ``vault`` and ``log audit``.
- ``json_schema``, ``json_records``: behind ``schema``.
- ``log_reader``: behind ``logs``. ``rotated_file``: reads log files over their rotation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from ..console.early_signals import release_signals
from ..console.exit_codes import ExitCode
from ..console.output import PROGRAM, end_streams, reserve_standard_streams, set_quiet
from ..console.program_restart import SUPERVISOR_ORDER
from ..console.text_encoding import use_utf8
from .command_groups import find_command
from .error_report import report
from .plain_arguments import read_plain_arguments

_QUIET: Final = "--quiet"
_JSON: Final = "--json"
COMPLETE: Final = "__complete"
"""Word by which the script of a shell asks for completions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises.

    Args:
        arguments: the command line; None for ``sys.argv``.
    """
    is_program = arguments is None
    if arguments is None:
        use_utf8()
        arguments = sys.argv[1:]
    reserve_standard_streams()
    if arguments[:1] == [COMPLETE]:
        release_signals("")
        from .completion import complete

        complete(arguments[1:])
        end_streams()
        return ExitCode.OK
    options, values = _split(arguments)
    json = _JSON in options
    set_quiet(json or _QUIET in options)
    options = [word for word in options if word != _QUIET]
    code = _run([*options, *values], is_program=is_program, json=json)
    if code == ExitCode.OK:
        _mention_what_waits(arguments)
    unwritten = end_streams()
    if unwritten is None or code != ExitCode.OK:
        return code
    return ExitCode.PIPE if isinstance(unwritten, BrokenPipeError) else report(unwritten)


def _mention_what_waits(arguments: Sequence[str]) -> None:
    """Write on a terminal what waits for the owner, if the command has talked to a daemon and something waits."""
    connection = sys.modules.get("fastn_p2p_client.daemon_connection")
    if connection is None or sys.stderr is None or not sys.stderr.isatty():
        return
    items = connection.latest_waiting()
    if items:
        from ..console.waiting_notice import write_waiting_notice

        write_waiting_notice(arguments, items)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before ``--``, and the rest, which has no options."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end:]


def _run(arguments: Sequence[str], *, is_program: bool, json: bool) -> int:
    try:
        if is_program and SUPERVISOR_ORDER in os.environ:  # it began with `main` before its restart, too
            release_signals("daemon")
            from ..console.supervisor_start import run_ordered

            return run_ordered()
        ended = _run_command(arguments)
        if hasattr(ended, "run"):  # the order of the command `daemon`
            ended = ended.run(restart=is_program)
    except SystemExit as end:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer: the reader of the help has closed the pipe
            return ExitCode.PIPE
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.PIPE
    except Exception as error:
        return report(error, json=json)
    return ended if isinstance(ended, int) else ExitCode.OK


def _run_command(arguments: Sequence[str]) -> Any:
    """Run one command and return what it returns. Typer is imported for command lines that are not plain."""
    command = find_command(arguments)
    release_signals(" ".join(command.path[1:]) if command else "")
    values = command and read_plain_arguments(command)
    if command is not None and values is not None:
        return command.run(**values)
    from .typer_commands import program

    return program()(list(arguments), PROGRAM, standalone_mode=False)
