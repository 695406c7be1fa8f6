"""Check of JSON lines of commands against the types that ``fastn-p2p schema`` declares for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from fastn_p2p.cli.command_groups import find_command
from fastn_p2p.cli.json_records import AuditLine
from fastn_p2p.cli.json_schema import result_types

__all__ = ["check_json_lines"]


def check_json_lines(arguments: Sequence[str], written: str) -> None:
    """Check that each line of a command with ``--json`` is of a declared type, and has no other fields.

    Raises:
        AssertionError: a line is not.
    """
    found = find_command(arguments) if "--json" in arguments else None
    if found is None:
        return
    types = result_types(found.run.__module__)
    if Any in types or len(types) == 1:  # any JSON, or no JSON but an error
        return
    for line in written.splitlines():
        problems = [_problem(json.loads(line), each) for each in types]
        assert None in problems, f"{' '.join(arguments)} printed {line}: {problems}"


def _problem(value: Any, declared: Any) -> str | None:
    try:
        record = msgspec.convert(value, declared)
    except msgspec.ValidationError as error:
        return str(error)
    if declared is AuditLine:  # each event has fields of its own
        return None
    again = msgspec.to_builtins(record)
    return None if json.loads(json.dumps(again)) == value else f"undeclared fields, {again} are declared"
