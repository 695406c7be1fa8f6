"""Commands of the group ``fastn-p2p vault``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group(
    "fastn_p2p.cli.commands.vault",
    ("status", "set-passphrase", "lock", "unlock", "add-slot", "remove-slot", "recovery-code"),
    "Encrypt the keys of this daemon's identities, and unlock them.",
)


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
