"""Commands of the group ``fastn-p2p peer``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.peer", ("add", "list", "rename", "remove"), "Manage the address book: names of peers."
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
