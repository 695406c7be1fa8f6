"""Commands of the group ``fastn-p2p invite``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.invite",
    ("create", "list", "revoke"),
    "Invite peers to some protocols, and to nothing else.\n\n"
    "`fastn-p2p invite --for Chat` is short for `fastn-p2p invite create --for Chat`.",
    default="create",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
