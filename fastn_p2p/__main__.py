"""Entry point of the program ``fastn-p2p``, which is also ``python -m fastn_p2p``."""

import gc
import sys
from typing import Final

_GC_THRESHOLD: Final = 10_000
"""New objects after which the garbage collector looks at the young ones; 700 by default. Modules are no garbage, and
looking at them while they load takes a tenth of a command's time."""


def main() -> int:
    """Run the command of ``sys.argv`` and return its exit code."""
    gc.set_threshold(_GC_THRESHOLD)
    from .cli import main as run_command  # here, because most of a command's time is imports

    code = run_command()
    gc.freeze()  # else the interpreter looks for garbage among all modules several times before it ends
    return code


if __name__ == "__main__":
    sys.exit(main())
