"""Commands of the group ``fastn-p2p transport``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.transport",
    ("rotate",),
    "Replace the transport key, with which this daemon speaks for its identities.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
