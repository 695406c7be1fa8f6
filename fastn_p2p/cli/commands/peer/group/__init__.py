"""Commands of the group ``fastn-p2p peer group``."""

from __future__ import annotations

from .....console.options import HomeOption
from ....lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.peer.group",
    ("create", "add", "remove", "list", "delete"),
    "Manage groups of peers. In access lists, a group is group:NAME.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
