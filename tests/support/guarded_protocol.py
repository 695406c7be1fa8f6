"""A protocol that tells what its processes are to others."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Final

from fastn_p2p_client.errors import InvalidConfig
from fastn_p2p_client.protocol import NoConfig, Permissions, Protocol, request

PR_GET_DUMPABLE: Final = 3
PR_GET_NO_NEW_PRIVS: Final = 39
EXECUTED: Final = f"import ctypes; print(ctypes.CDLL(None).prctl({PR_GET_NO_NEW_PRIVS}, 0, 0, 0, 0))"


def call_prctl(option: int) -> int:
    return int(ctypes.CDLL(None).prctl(option, 0, 0, 0, 0))


class Guarded(Protocol):
    """Public. Refuses every config in a process that others could look into."""

    public = True

    @classmethod
    def permissions(cls, config: NoConfig) -> Permissions:
        return Permissions(programs=[sys.executable])

    async def on_check(self) -> None:
        if call_prctl(PR_GET_DUMPABLE) or not call_prctl(PR_GET_NO_NEW_PRIVS):
            raise InvalidConfig(protocol="Guarded", reason="others can look into this process")

    @request
    def facts(self, request: None) -> dict[str, int]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, bytes([call_prctl(PR_GET_DUMPABLE)]))
            os._exit(0)
        os.waitpid(pid, 0)
        forked = os.read(read, 1)[0]
        os.close(read)
        os.close(write)
        done = subprocess.run([sys.executable, "-c", EXECUTED], capture_output=True, text=True, check=True, timeout=100)
        return {
            "own": call_prctl(PR_GET_DUMPABLE),
            "forked": forked,
            "executed gains nothing": int(done.stdout),
        }
