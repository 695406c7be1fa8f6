"""Commands of the group ``fastn-p2p backup``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.backup",
    ("create", "show", "restore"),
    "Back up identities with their keys, and restore them.",
)
