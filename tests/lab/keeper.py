"""Program that ends what a killed test leaves in its namespaces: ``keeper.py DIRECTORY``.

Each line of the input is the file of a namespace, which the keeper holds open. The input ends with the test process.
Then each process in one of the namespaces is killed, and the directory deleted.
"""

import os
import shutil
import signal
import sys
from pathlib import Path


def main() -> None:
    """Read namespaces until the input ends, then kill until none of their processes is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' Ctrl-C is not ours: their end is
    inodes = set()
    for line in sys.stdin:
        inodes.add(os.fstat(os.open(line.strip(), os.O_RDONLY)).st_ino)
        print("held", flush=True)
    while _kill(inodes):
        pass
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def _kill(inodes: set[int]) -> int:
    killed = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "ns/net").stat().st_ino in inodes:
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    return killed


if __name__ == "__main__":
    main()
