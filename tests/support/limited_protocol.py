"""A protocol that uses up what it is told to."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import msgspec

from fastn_p2p_client.protocol import NoConfig, Permissions, Protocol, request


class Use(msgspec.Struct):
    what: str
    amount: int = 0


class Limited(Protocol):
    """Public."""

    public = True

    @classmethod
    def permissions(cls, config: NoConfig) -> Permissions:
        return Permissions(programs=[sys.executable])

    @request
    def use(self, use: Use) -> str:
        if use.what == "limits":
            kinds = (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
            return " ".join(str(resource.getrlimit(kind)[0]) for kind in kinds)
        try:
            if use.what == "file":
                self._write(use.amount)
            elif use.what == "descriptors":
                self._open(use.amount)
            elif use.what == "memory":
                return f"has {len(bytearray(use.amount))}"
            elif use.what == "processes":
                self._start(use.amount)
        except MemoryError:
            return "MemoryError"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    def _write(self, size: int) -> None:
        path = Path(self.context.workspace) / "large"
        try:
            with path.open("wb", buffering=0) as file:
                for _ in range(0, size, 65536):
                    file.write(bytes(65536))
        finally:
            path.unlink()

    def _open(self, count: int) -> None:
        opened: list[int] = []
        try:
            while len(opened) < count:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        finally:
            for each in opened:
                os.close(each)

    def _start(self, count: int) -> None:
        for _ in range(count):
            subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
