"""The commands of ``fastn-p2p peer``."""

from __future__ import annotations

from ...groups import group
from ...options import HomeOption

app = group(
    "fastn_p2p.commands.peer", ("add", "list", "rename", "remove"), "The address book: names for other identities."
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """What may stand before any command of the group."""
