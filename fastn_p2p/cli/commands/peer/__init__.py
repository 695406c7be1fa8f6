"""Commands of the group ``fastn-p2p peer``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.peer",
    (
        "add",
        "list",
        "rename",
        "remove",
        "pending",
        "accept",
        "accept-successor",
        "block",
        "unblock",
        "blocked",
        "group",
    ),
    "Manage contacts: the address book, strangers that were refused, blocked peers, groups.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
