"""Commands of the group ``fastn-p2p peer``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.peer",
    (
        "add",
        "list",
        "rename",
        "remove",
        "pending",
        "accept",
        "accept-successor",
        "block",
        "unblock",
        "blocked",
        "group",
    ),
    "Manage contacts: the address book, strangers that were refused, blocked peers, groups.",
)
