"""``python -m tests.soak``: rounds of load and faults for two hours, or so many calls and bytes.

The rounds print a table, a row for each, and write it to a page. They fail if a byte was wrong, a call with ``retry``
or an accepted mail was lost, a process was restarted, or if memory, descriptors or latency have grown. With ``--calls``
or ``--gigabytes`` there are no faults: it makes so many calls and carries so many bytes, and prints a line every ten
seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvloop

from tests.soak.bulk import run_bulk
from tests.soak.daemons import start_soak_daemons
from tests.soak.page import PAGE
from tests.soak.rounds import soak_rounds
from tests.support.two_daemons import start_two_daemons

_SHOWN = 10
"""Problems that are printed at most."""


def main() -> int:
    """Run the soak. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=os.environ.get("SOAK_MINUTES", "120"),
        help="minutes of rounds ($SOAK_MINUTES; default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=0.0, help="calls in a second, for a machine that has other work; 0: no limit"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is written (default: docs/soak.md)")
    parser.add_argument("--calls", type=int, default=0, help="calls instead of rounds, such as 10000000")
    parser.add_argument("--gigabytes", type=float, default=0.0, help="GB of sessions instead of rounds, such as 100")
    options = parser.parse_args()
    if options.calls or options.gigabytes:
        with start_two_daemons() as two:
            return 0 if run_bulk(two, options.calls, options.gigabytes) else 1
    with start_soak_daemons() as daemons:
        problems = uvloop.run(soak_rounds(daemons, options.minutes, options.rate, options.page))
    for problem in problems[:_SHOWN]:
        print(problem)
    if len(problems) > _SHOWN:
        print(f"and {len(problems) - _SHOWN} more")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
