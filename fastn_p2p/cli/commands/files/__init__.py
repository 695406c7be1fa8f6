"""Commands ``fastn-p2p files``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.files",
    ("ls", "get", "put", "offers", "accept", "reject"),
    "Get files from peers, and send files to them.",
)
