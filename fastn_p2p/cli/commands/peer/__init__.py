"""The commands of ``fastn-p2p peer``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.peer", ("add", "list", "rename", "remove"), "The address book: names for other identities."
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """What may stand before any command of the group."""
