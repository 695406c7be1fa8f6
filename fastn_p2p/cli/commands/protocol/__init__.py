"""Commands of the group ``fastn-p2p protocol``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
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


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
