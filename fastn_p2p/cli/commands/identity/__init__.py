"""Commands of the group ``fastn-p2p identity``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
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


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
