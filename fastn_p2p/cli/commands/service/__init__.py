"""Commands of the group ``fastn-p2p service``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.service",
    ("install", "remove", "status"),
    "Run the daemon as a service of systemd.",
)
