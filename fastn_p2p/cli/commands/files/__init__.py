"""Commands ``fastn-p2p files``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.files",
    ("ls", "get", "put", "offers", "accept", "reject"),
    "Get files from peers, and send files to them.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Options that may stand before any command of the group."""
