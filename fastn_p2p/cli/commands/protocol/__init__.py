"""Commands of the group ``fastn-p2p protocol``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands",
    {
        "add": "add_protocol",
        "remove": "remove_protocol",
        "set": "set_protocol",
        "list": "protocols",
        "new": "new_protocol",
        "check": "check",
        "reload": "reload",
        "start": "start",
        "stop": "stop",
    },
    "Manage protocols of identities, and installed protocols.",
)
