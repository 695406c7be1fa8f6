"""Commands ``fastn-p2p mail``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.mail",
    ("send", "list", "read", "delete", "outbox", "retry"),
    "Send mail to peers, also while they are offline, and read received mail.",
)
