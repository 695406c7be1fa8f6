"""Resource limits of a process that runs already."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime.process_setup import set_soft_limit

_SECONDS: Final = 10.0
"""Seconds for the process that sets limits as another user. It needs some hundredths."""
_AS_OWNER: Final = """
import resource, sys
pid, *rest = map(int, sys.argv[1:])
for kind, most in zip(rest[::2], rest[1::2]):
    _, hard = resource.prlimit(pid, kind)
    open_ended = resource.RLIM_INFINITY
    wanted = most or open_ended
    if hard != open_ended and (wanted == open_ended or wanted > hard):
        wanted = hard
    resource.prlimit(pid, kind, (wanted, hard))
"""


def set_limits(pid: int, limits: Mapping[int, int]) -> None:
    """Set soft limits of a process, by kind: the hard limits stay, and 0 stands for them.

    Only CAP_SYS_RESOURCE allows root to limit processes of others, and containers may lack it. Without it, a process
    of the owner does it, which lives for this alone.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: the limits cannot be set.
    """
    try:
        for kind, most in limits.items():
            set_soft_limit(pid, kind, most)
    except PermissionError:
        if os.geteuid() != 0:
            raise
        _set_as_owner(pid, limits)


def _set_as_owner(pid: int, limits: Mapping[int, int]) -> None:
    import subprocess

    fields = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {name: value for name, _, value in fields}
    user, group = (int(status[name].split()[0]) for name in ("Uid", "Gid"))
    numbers = [str(number) for limit in limits.items() for number in limit]
    command = [sys.executable, "-I", "-S", "-c", _AS_OWNER, str(pid), *numbers]
    try:
        subprocess.run(
            command,
            user=user,
            group=group,
            extra_groups=(),
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.decode(errors="replace").strip().rpartition("\n")[2]) from None
    except subprocess.TimeoutExpired:
        raise OSError(f"the process that sets them did not end within {_SECONDS:g} s") from None
