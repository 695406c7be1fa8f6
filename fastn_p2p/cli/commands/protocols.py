from __future__ import annotations

from ...console.options import HomeOption, JsonOption


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the installed protocols.

    Prints each protocol with its config. Lists those of the daemon's environment, or of this command's environment if
    no daemon runs. A protocol that cannot be loaded is listed with the reason.
    """
    from ..protocol_list import show

    show(home, json=json)
