"""Command line: how a command runs, and how an error becomes a message and an exit code.

- ``commands``: one module per command; ``command_groups`` imports it when it is used.
- ``plain_arguments``: reads the command line if it is complete and valid; ``typer_commands``: if it is not, and help.
- ``status``, ``netcheck``, ``stream``: behind the commands of these names.
- ``protocol_list``, ``protocol_template``, ``python_environment``: behind ``protocol list`` and ``protocol new``.
- ``pairing``, ``qr_code``: behind ``pair`` and ``ticket``. ``trace_text``: the output of ``explain``.
- ``vault_slots``, ``vault_text``, ``audit_reader``: behind ``vault`` and ``log audit``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from fastn_p2p_client.plain_text import plain

from ..console.exit_codes import EXITS, PAIRING_EXITS, CommandLineError, ExitCode
from ..console.output import end_streams, reserve_standard_streams, write_lines, write_message
from ..console.program_restart import SUPERVISOR_ORDER
from ..console.text_encoding import use_utf8
from .command_groups import PROGRAM, find_command
from .plain_arguments import read_plain_arguments

_COMPLETION: Final = "_FASTN_P2P_COMPLETE"
"""Environment variable by which a shell asks for completions; typer answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises.

    Args:
        arguments: the command line; None for ``sys.argv``.
    """
    if arguments is None:
        use_utf8()
    reserve_standard_streams()
    code = _run(arguments)
    unwritten = end_streams()
    if unwritten is None or code != ExitCode.OK:
        return code
    return ExitCode.PIPE if isinstance(unwritten, BrokenPipeError) else report(unwritten)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        if arguments is None and SUPERVISOR_ORDER in os.environ:  # it began with `main` before its restart, too
            from ..console.supervisor_start import run_ordered

            return run_ordered()
        ended = _run_command(sys.argv[1:] if arguments is None else arguments)
        if hasattr(ended, "run"):  # the order of the command `daemon`
            ended = ended.run(restart=arguments is None)
    except SystemExit as end:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer: the reader of the help has closed the pipe
            return ExitCode.PIPE
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.PIPE
    except Exception as error:
        return report(error)
    return ended if isinstance(ended, int) else ExitCode.OK


def _run_command(arguments: Sequence[str]) -> Any:
    """Run one command and return what it returns. Typer is imported for command lines that are not plain."""
    command = None if _COMPLETION in os.environ else find_command(arguments)
    values = command and read_plain_arguments(command)
    if command is not None and values is not None:
        return command.run(**values)
    from .typer_commands import program

    return program()(list(arguments), PROGRAM, standalone_mode=False)


def report(error: Exception) -> ExitCode:
    """Print an error and return its exit code."""
    from fastn_p2p_client.errors import ApplicationError, DaemonNotRunning, P2PError

    if os.environ.get("FASTN_TRACEBACK"):
        import traceback

        write_lines("".join(traceback.format_exception(error)))
    if isinstance(error, P2PError):
        write_message(f"{PROGRAM}: {error}")
        for note in getattr(error, "__notes__", ()):
            write_message(note)
        if isinstance(error, DaemonNotRunning):
            _print_last_exit(error.home)
        return EXITS.get(error.code) or PAIRING_EXITS.get(error.code, ExitCode.INTERNAL)
    if isinstance(error, ApplicationError):
        from ..console.json_values import to_json

        write_message(f"{PROGRAM}: application error: {error}")
        if error.payload is not None:
            write_message(to_json(error.payload).decode())
        return ExitCode.APPLICATION
    if isinstance(error, CommandLineError):
        write_message(f"{PROGRAM}: {error}")
        return ExitCode.USAGE
    if isinstance(error, UnicodeEncodeError):
        write_message(f"{PROGRAM}: an argument is not UTF-8: {error.object!r}")
        return ExitCode.USAGE
    if isinstance(error, OSError):
        write_message(f"{PROGRAM}: {_os_error_text(error)}")
        return ExitCode.STORAGE
    if f"{__name__}.typer_commands" in sys.modules:  # typer has read the command line
        from .typer_commands import CLICK_EXCEPTION

        if isinstance(error, CLICK_EXCEPTION):
            return _usage_error(error)
    write_message(f"{PROGRAM}: internal error: {error!r}. Please report it with the output of FASTN_TRACEBACK=1")
    return ExitCode.INTERNAL


def _os_error_text(error: OSError) -> str:
    if not isinstance(error.filename, str | bytes) or error.strerror is None:
        return str(error)
    refused = isinstance(error, PermissionError) and os.geteuid() != 0
    hint = ". If the daemon's processes have users of their own, this takes sudo" if refused else ""
    return f"{os.fsdecode(error.filename)}: {error.strerror}{hint}"


def _usage_error(error: Any) -> ExitCode:
    """Print an error of the command line's parser. It repeats arguments, so control characters are escaped."""
    if not error.__class__.__name__.startswith("NoArgs"):  # the message of NoArgsIsHelpError is the help
        error.message = plain(error.message)
    words = io.StringIO()
    error.show(words)
    write_lines(words.getvalue().removesuffix("\n"))
    return ExitCode.USAGE


def _print_last_exit(home: str) -> None:
    """Print how the last daemon ended, unless it was stopped."""
    from pathlib import Path

    from fastn_p2p_actors.runtime.last_exit import read_last
    from fastn_p2p_client.home import Home

    found = Home(Path(home))
    last = read_last(found)
    if last is not None and last.code:
        write_message(f"{PROGRAM}: the last daemon ended: {last}. See {found.logs}")
