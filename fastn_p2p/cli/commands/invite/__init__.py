"""Commands of the group ``fastn-p2p invite``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.invite",
    ("create", "list", "revoke"),
    "Let somebody use some protocols, and nothing else: make an invitation.\n\n"
    "`fastn-p2p invite --for Chat` is short for `fastn-p2p invite create --for Chat`.",
    default="create",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
