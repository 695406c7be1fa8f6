"""Commands of the group ``fastn-p2p peer group``."""

from __future__ import annotations

from typing import Final

from ....command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.peer.group",
    ("create", "add", "remove", "list", "delete"),
    "Manage groups of peers. In access lists, a group is group:NAME.",
)
