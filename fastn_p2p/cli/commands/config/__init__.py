"""Commands of the group ``fastn-p2p config``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group(
    "fastn_p2p.cli.commands.config", ("show", "get", "set", "path"), "Show and change the settings of the daemon."
)
