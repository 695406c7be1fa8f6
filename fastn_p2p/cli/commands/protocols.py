from __future__ import annotations

from ...console.options import (
    HomeOption,
    JsonOption,
)


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the protocols that are installed.

    Each with its config. Asks the daemon, or looks itself where none is running. One that is broken is listed with the
    reason.
    """
    from ..protocol_list import show

    show(home, json=json)
