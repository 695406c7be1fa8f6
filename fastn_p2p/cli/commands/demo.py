from __future__ import annotations

from ...console.options import ErrorsOption


def run(json: ErrorsOption = False) -> None:
    """Demonstrate two daemons on this machine.

    Makes calls between them, kills a process and waits for its restart. Takes a few seconds and leaves nothing behind.
    """
    from ...demo import demonstrate

    raise SystemExit(demonstrate())
