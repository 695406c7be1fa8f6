"""Audit of commands: which program has changed what, and with which result."""

from __future__ import annotations

from typing import Final

import msgspec

from fastn_p2p_client.ipc.messages import ErrorReply

from ..runtime.mailbox import Sender
from ..vault.audit_reporter import AuditReporter

_SHOWN: Final = (
    "name", "identity", "protocol", "instance", "peer", "online", "listed", "allow", "program",
    "keep_data", "add", "remove", "memory", "processes", "file_size", "open_files",
)  # fmt: skip
"""Fields of commands that are recorded. Configs and every other field are not, because they may hold secrets."""


def record_command(
    audit: AuditReporter, sender: Sender, program: str, command: msgspec.Struct, reply: msgspec.Struct
) -> None:
    """Record a command that a program has sent, and its outcome: ``done``, or the code of the error."""
    fields = {name: getattr(command, name) for name in _SHOWN if getattr(command, name, None) not in (None, (), "")}
    shown = {f"of_{name}" if name == "program" else name: _plain(value) for name, value in fields.items()}
    audit.record(
        "command",
        command=type(command).__name__,
        outcome=reply.code if isinstance(reply, ErrorReply) else "done",
        program=program,
        pid=sender.pid,
        uid=sender.uid,
        **shown,
    )


def _plain(value: object) -> str | int | list[str]:
    if isinstance(value, tuple | list):
        return list(map(str, value))
    return value if isinstance(value, int) else str(value)
