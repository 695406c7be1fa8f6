"""Commands of the group ``fastn-p2p invite``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.invite",
    ("create", "list", "revoke"),
    "Invite peers to some protocols, and to nothing else.\n\n"
    "`fastn-p2p invite --for Chat` is short for `fastn-p2p invite create --for Chat`.",
    default="create",
)
