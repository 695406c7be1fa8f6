"""Commands ``fastn-p2p mail``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.mail",
    ("send", "list", "read", "delete", "outbox", "retry"),
    "Send mail to peers, also while they are offline, and read received mail.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Options that may stand before any command of the group."""
