"""Program that enters a network namespace and becomes another program: ``enter.py NAMESPACE COMMAND...``."""

import ctypes
import os
import sys

_CLONE_NEWNET = 0x40000000


def main() -> None:
    """Enter the namespace in the file ``argv[1]``, and run the command in the rest."""
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        sys.exit(f"cannot enter the network namespace {sys.argv[1]}: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
