"""Commands of the group ``fastn-p2p vault``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.vault",
    ("status", "set-passphrase", "lock", "unlock", "add-slot", "remove-slot", "recovery-code"),
    "Encrypt the keys of this daemon's identities, and unlock them.",
)
