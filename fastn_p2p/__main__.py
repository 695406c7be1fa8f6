"""Entry point of the program ``fastn-p2p``, which is also ``python -m fastn_p2p``."""

import gc
import os
import sys
from typing import Final

from .console.deferred_modules import defer_modules
from .console.early_signals import hold_signals, release_signals
from .console.program_restart import SUPERVISOR_ORDER

_GC_THRESHOLD: Final = 50_000
"""New objects after which the garbage collector looks at the young ones. Modules are no garbage, and looking at them
while they load takes a tenth of a command's time."""


def main() -> int:
    """Run the command of ``sys.argv`` and return its exit code."""
    hold_signals()
    usual = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD)
    defer_modules()
    if SUPERVISOR_ORDER in os.environ:
        gc.set_threshold(*usual)  # garbage of the daemon's processes would fill megabytes between two looks
        code = _run_supervisor()
    else:
        from .cli import main as run_command  # here, because most of a command's time is imports

        code = run_command()
    gc.freeze()  # else the interpreter looks for garbage among all modules several times before it ends
    return code


def _run_supervisor() -> int:
    """Run the daemon after the command ``daemon`` has restarted the program, without loading the command line."""
    from .console.exit_codes import ExitCode
    from .console.output import end_streams, reserve_standard_streams

    reserve_standard_streams()
    try:
        release_signals("daemon")
        from .console.supervisor_start import run_ordered

        code = run_ordered()
    except SystemExit as end:
        code = int(end.code or ExitCode.OK)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        from .cli.error_report import report

        code = report(error)
    end_streams()
    return code


if __name__ == "__main__":
    sys.exit(main())
