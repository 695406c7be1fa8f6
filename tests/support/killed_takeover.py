"""Program that changes the vault of a directory in children which are killed in the middle.

It has no threads, unlike a test, so it can fork. Each line of its input is a JSON array: the change, directory of the
vault, functions of ``os`` whose calls count, number of the call before which the child dies, bytes of a last write that
arrive. It answers each with the exit code of the child.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fastn_p2p_actors.vault.owner_messages import SlotKind
from tests.support.locked_vaults import LockedVault

ONE: Final = b"one"
TWO: Final = b"two"
WRITES: Final = ("write", "writev")
STEPS: Final = (*WRITES, "open", "fchmod", "pwrite", "fsync", "link", "unlink", "replace", "rename")
"""Functions of ``os`` that change files, or make a change last."""
ROOT: Final = Path(__file__).resolve().parents[2]

Killed = Callable[[str, Path, Sequence[str], int, int], bool]


@contextmanager
def killer() -> Iterator[Killed]:
    """Return a function that makes a change until the child is killed. It returns False if there are fewer calls."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:

            def change(name: str, folder: Path, functions: Sequence[str], number: int, written: int) -> bool:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps([name, str(folder), functions, number, written]) + "\n")
                process.stdin.flush()
                code = int(process.stdout.readline())
                assert code in (0, -signal.SIGKILL)
                return code != 0

            yield change
        finally:
            process.kill()


async def _change(name: str, vault: LockedVault) -> None:
    """Change a vault: without slots for ``encrypt``, otherwise with the passphrase ``ONE`` or, to remove it, both."""
    if name == "rotate":
        if vault.store.is_locked:
            await vault.unlock(ONE)
        vault.store.rotate_transport()
    elif name == "encrypt":
        await vault.set_passphrase(ONE)
    elif name == "add":
        await vault.add(SlotKind.PASSPHRASE, TWO, ONE)
    elif name == "change":
        await vault.set_passphrase(TWO, ONE)
    else:
        await vault.remove("passphrase", TWO if name == "remove" else ONE, decrypt=name == "decrypt")


def _run(name: str, folder: Path, functions: Sequence[str], number: int, written: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            _die_at(functions, number, written)
            asyncio.run(_change(name, LockedVault(folder)))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(functions: Sequence[str], number: int, written: int) -> None:
    left = [number]
    write = os.write

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                left[0] -= 1
            if left[0] == 0:
                if name in WRITES:
                    parts = arguments[1] if name == "writev" else [arguments[1]]
                    write(arguments[0], b"".join(map(bytes, parts))[:written])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    for name in functions:
        setattr(os, name, counted(name, getattr(os, name)))


if __name__ == "__main__":
    for line in sys.stdin:
        what, place, counting, last, size = json.loads(line)
        sys.stdout.write(f"{_run(what, Path(place), counting, last, size)}\n")
        sys.stdout.flush()
