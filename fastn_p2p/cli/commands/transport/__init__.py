"""Commands of the group ``fastn-p2p transport``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.transport",
    ("rotate",),
    "Replace the transport key, with which this daemon speaks for its identities.",
)
