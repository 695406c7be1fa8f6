"""Commands of the group ``fastn-p2p backup``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.backup",
    ("create", "show", "restore"),
    "Back up identities with their keys, and restore them.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
