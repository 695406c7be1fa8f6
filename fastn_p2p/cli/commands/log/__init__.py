"""Commands of the group ``fastn-p2p log``."""

from __future__ import annotations

from ....console.options import HomeOption
from ...lazy_groups import lazy_group

app = lazy_group("fastn_p2p.cli.commands.log", ("audit",), "Read what the daemon has recorded.")


@app.callback()
def _options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""
