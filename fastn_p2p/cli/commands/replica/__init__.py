"""Commands of the group ``fastn-p2p replica``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.replica",
    {
        "invite": "invite",
        "join": "join",
        "list": "list",
        "promote": "promote",
        "adopt": "adopt",
        "remove": "remove",
        "leave": "end",
    },
    "Serve one identity at several daemons. Its key stays at one of them, its owner's.",
)
