"""Commands of the group ``fastn-p2p identity``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands",
    {
        "create": "create_identity",
        "revoke": "identity.revoke",
        "delete": "delete_identity",
        "list": "list_identities",
        "set": "set_identity",
        "online": "identity_online",
        "offline": "identity_offline",
    },
    "Manage identities: key pairs with a name.",
)
