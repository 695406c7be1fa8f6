"""Report of an error: a message on standard error, or JSON on standard output, and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fastn_p2p_client.plain_text import plain

from ..console.exit_codes import EXITS, PAIRING_EXITS, CommandFailed, ExitCode
from ..console.output import PROGRAM, put_json, write_error_lines, write_problem

_INTERNAL: Final = "internal-error"


class _Report(NamedTuple):
    """An error as it is reported.

    Attributes:
        message: one line.
        notes: further lines.
        fields: details by name, for JSON.
        request_id: id of the call or session that has failed; empty for none.
    """

    code: str
    message: str
    exit_code: ExitCode
    fields: Mapping[str, Any] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    request_id: str = ""

    def json(self) -> dict[str, Any]:
        """Return the value of ``error`` in JSON."""
        value = {"code": self.code, "message": self.message, "exit": int(self.exit_code), "fields": dict(self.fields)}
        return {**value, "request_id": self.request_id} if self.request_id else value


def report(error: Exception, *, json: bool = False) -> ExitCode:
    """Report an error and return its exit code.

    Args:
        json: write it as JSON to standard output, unless that cannot be written.
    """
    if os.environ.get("FASTN_TRACEBACK"):
        import traceback

        write_error_lines("".join(traceback.format_exception(error)))
    usage = _usage_error(error)
    found = _report_of(error) if usage is None else _Report("usage-error", usage[0], ExitCode.USAGE)
    if json:
        with contextlib.suppress(OSError):
            put_json({"error": found.json()})
            return found.exit_code
    if usage is not None:
        write_error_lines(usage[1])
        return found.exit_code
    write_problem(found.message)
    for note in found.notes:
        write_error_lines(plain(note))
    return found.exit_code


def error_json(error: Exception) -> dict[str, Any]:
    """Return an error as ``--json`` writes it."""
    return {"error": _report_of(error).json()}


def _report_of(error: Exception) -> _Report:
    from fastn_p2p_client.errors import ApplicationError, DaemonNotRunning, P2PError

    if isinstance(error, P2PError):
        exit_code = EXITS.get(error.code) or PAIRING_EXITS.get(error.code, ExitCode.INTERNAL)
        notes = [*getattr(error, "__notes__", ())]
        if isinstance(error, DaemonNotRunning):
            notes += _last_exit(error.home)
        return _Report(error.code, str(error), exit_code, error.fields(), tuple(notes), error.request_id)
    if isinstance(error, ApplicationError):
        fields = {"kind": error.kind, "message": error.message, "payload": error.payload}
        return _Report(
            "application-error", f"application error: {error}", ExitCode.APPLICATION, fields, _payload(error),
            error.request_id,
        )  # fmt: skip
    if isinstance(error, CommandFailed):
        request_id = getattr(error.__cause__, "request_id", "")
        return _Report(error.code, str(error), error.exit_code, error.fields, request_id=request_id)
    if isinstance(error, UnicodeEncodeError):
        return _Report("usage-error", f"an argument is not UTF-8: {error.object!r}", ExitCode.USAGE)
    if isinstance(error, OSError):
        return _Report("storage-failed", _os_error_text(error), ExitCode.STORAGE)
    text = f"internal error: {error!r}. Please report it with the output of FASTN_TRACEBACK=1"
    return _Report(_INTERNAL, text, ExitCode.INTERNAL)


def _payload(error: Any) -> tuple[str, ...]:
    from ..console.json_values import to_json

    return () if error.payload is None else (to_json(error.payload).decode(),)


def _os_error_text(error: OSError) -> str:
    if not isinstance(error.filename, str | bytes) or error.strerror is None:
        return str(error)
    path, hint = os.fsdecode(error.filename), ""
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        from pathlib import Path

        from fastn_p2p_client.private_paths import directory_closed_to_owner

        closed = directory_closed_to_owner(Path(path).absolute())
        if closed is None:
            hint = ". If the daemon's processes have users of their own, this takes sudo"
        else:
            hint = f". The mode of {closed} keeps its owner out: chmod u+rwx {closed}"
    return f"{path}: {error.strerror}{hint}"


def _usage_error(error: Any) -> tuple[str, str] | None:
    """Return the message of an error of typer's parser, and all that it shows; None for another error.

    It repeats arguments, so control characters are escaped.
    """
    module = sys.modules.get(f"{__package__}.typer_commands")  # loaded if typer has read the command line
    if module is None or not isinstance(error, module.CLICK_EXCEPTION):
        return None
    if not error.__class__.__name__.startswith("NoArgs"):  # the message of NoArgsIsHelpError is the help
        error.message = plain(error.message)
    words = io.StringIO()
    error.show(words)
    return error.format_message(), words.getvalue().removesuffix("\n")


def _last_exit(home: str) -> list[str]:
    """Return a line about how the last daemon ended, unless it was stopped."""
    from pathlib import Path

    from fastn_p2p_actors.runtime.last_exit import read_last
    from fastn_p2p_client.home import Home

    found = Home(Path(home))
    last = read_last(found)
    return [f"{PROGRAM}: the last daemon ended: {last}. See {found.logs}"] if last is not None and last.code else []
