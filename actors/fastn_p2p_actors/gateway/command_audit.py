"""Audit of commands: which program has changed what, and with which result."""

from __future__ import annotations

from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import AddPeer, ErrorReply, InvitationList, InvitationText, PeerReply
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.peer_text import ticket_of

from ..runtime.mailbox import Sender
from ..vault.audit_reporter import AuditReporter

_SHOWN: Final = (
    "name", "identity", "protocol", "instance", "peer", "successor", "online", "listed", "allow", "program",
    "keep_data", "add", "remove", "bindings", "uses", "seconds", "id", "access", "memory",
    "processes", "file_size", "open_files",
)  # fmt: skip
"""Fields of commands that are recorded. Configs and every other field are not, because they may hold secrets. Of a
ticket, only the identity that it names is recorded: an invitation has a secret."""


_SHOWN_OF_TEXT: Final = 16
"""Characters of a damaged ticket that are recorded."""


def record_command(
    audit: AuditReporter, sender: Sender, program: str, command: msgspec.Struct, reply: msgspec.Struct
) -> None:
    """Record a command that a program has sent, and its outcome: ``done``, or the code of the error.

    Commands for a peer have its ID52 once the address book knows it. A pairing is an event of its own.
    """
    fields = {name: getattr(command, name) for name in _SHOWN if getattr(command, name, None) not in (None, (), "")}
    shown = {f"of_{name}" if name == "program" else name: _plain(value) for name, value in fields.items()}
    if isinstance(command, AddPeer):
        shown["peer"] = _without_secret(command.peer)
    if isinstance(reply, PeerReply):
        shown["peer"] = reply.peer.id52
        if reply.let_in_to:
            shown["let_in_to"] = list(reply.let_in_to)
    if isinstance(reply, InvitationText):
        shown["id"] = reply.invitation.id
    elif isinstance(reply, InvitationList) and len(reply.invitations) == 1:
        shown["id"] = reply.invitations[0].id
    if isinstance(command, AddPeer) and command.paired_with and isinstance(reply, PeerReply):
        who = {"identity": command.paired_with, **shown, "renamed_from": reply.renamed_from}
        audit.record("paired", **who, program=program, pid=sender.pid, uid=sender.uid)
        return
    audit.record(
        "command",
        command=type(command).__name__,
        outcome=reply.code if isinstance(reply, ErrorReply) else "done",
        program=program,
        pid=sender.pid,
        uid=sender.uid,
        **shown,
    )


def _without_secret(peer: str) -> str:
    """Return the name of a peer: the ID52 in place of a ticket, and only the first characters of a damaged one.

    The secret of an invitation is far behind these.
    """
    try:
        ticket = ticket_of(peer)
    except P2PError:
        return f"{peer[:_SHOWN_OF_TEXT]}…"
    return peer[:MAX_NAME] if ticket is None else ticket.identity.id52


def _plain(value: object) -> str | int | list[str]:
    if isinstance(value, tuple | list):
        return list(map(str, value))
    return value if isinstance(value, int) else str(value)
