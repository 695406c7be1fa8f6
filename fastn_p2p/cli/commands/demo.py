from __future__ import annotations

import typer


def run() -> None:
    """Show it all, with two daemons on this machine.

    Calls between them, a process killed and healed; takes some seconds and leaves nothing behind.
    """
    from ...demo import demonstrate

    raise typer.Exit(demonstrate())
