"""Commands of the group ``fastn-p2p log``."""

from __future__ import annotations

from typing import Final

from ...command_groups import command_group

GROUP: Final = command_group("fastn_p2p.cli.commands.log", ("audit",), "Read what the daemon has recorded.")
