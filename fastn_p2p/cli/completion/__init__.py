"""Shell completion: the words that can stand at the cursor.

The script of a shell runs ``fastn-p2p __complete SHELL WORD...`` and gets a line that says what follows (``words``,
``files`` or ``directories``: the shell completes the last two itself), then one word on each line.

Names are read from the home directory. Paths of a peer are asked for, within ``remote_paths.DEADLINE``. No command
runs, no passphrase is asked for, and an error is no words. A word is data, which no shell expands. Words with control
characters or invisible characters are left out.

- ``shells``: the scripts, and words as each shell writes them.
- ``command_line``: finds out what the word is.
- ``home_names``: names in the home directory. - ``remote_paths``: paths of a peer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from fastn_p2p_client.plain_text import plain

MOST: Final = 1000
"""Words that are offered at most."""


def complete(arguments: Sequence[str]) -> None:
    """Print the completions of a command line.

    Args:
        arguments: the shell, and what its script passes (see ``shells.read``).
    """
    from .command_line import completions
    from .shells import read, write

    try:
        shell, typed = read(arguments)
        kind, words = completions(typed.before, typed.word)
        found = {word for word in words if word.startswith(typed.word) and plain(word) == word and word.isprintable()}
        sys.stdout.write("\n".join(write(shell, typed, kind, sorted(found)[:MOST])) + "\n")
    except Exception:
        if os.environ.get("FASTN_TRACEBACK"):
            raise
