from __future__ import annotations

import enum
from typing import Annotated

from ...console.options import ErrorsOption
from ...console.output import write_result
from ...console.parameters import Argument


class Shell(enum.StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def run(
    shell: Annotated[Shell, Argument(metavar="SHELL", help="bash, zsh or fish.")],
    json: ErrorsOption = False,
) -> None:
    """Print the script that completes words in a shell.

    It completes commands, options, identities, peers, protocols, instances, offers and the paths that a peer shares.
    In ~/.bashrc: source <(fastn-p2p completion bash). In ~/.zshrc, after compinit: source <(fastn-p2p completion zsh).
    For fish: fastn-p2p completion fish > ~/.config/fish/completions/fastn-p2p.fish
    """
    from ..completion.shells import script

    write_result(script(shell).rstrip("\n"))
