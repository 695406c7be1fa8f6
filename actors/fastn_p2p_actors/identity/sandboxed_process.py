"""Parts of an identity's process that its sandbox makes necessary: temporary files, and sockets from the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

from ..runtime.actor import ActorContext
from ..runtime.sandbox.roles import PROTOCOLS, TEMPORARY

HINT: Final = (
    "The sandbox may be the reason: the protocol declares what its code needs beside its workspace "
    "(Protocol.permissions), and its owner grants that"
)
_MOST_CAUSES: Final = 20
"""Exceptions of one chain that are looked at."""


def is_permission_denied(error: BaseException | None) -> bool:
    """Return whether the exception, or one that led to it, says that the kernel refused something."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return False
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


class DeniedAttemptHint(logging.Filter):
    """Adds ``HINT`` to log lines about exceptions that a sandbox can have caused."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and is_permission_denied(record.exc_info[1]):
            record.msg, record.args = f"{record.getMessage()}. {HINT}", None
        return True


class SandboxTooSmall(Exception):
    """A binding needs what this process gave up when it entered its sandbox."""


def make_directories(directory: Path, *, empty: bool = False) -> None:
    """Make the directories of an identity to which its code may write: a sandbox has rules for what exists.

    Args:
        directory: directory of the identity.
        empty: delete the temporary files of earlier processes.
    """
    temporary = directory / TEMPORARY
    if empty:
        shutil.rmtree(temporary, ignore_errors=True)
    for each in (directory / PROTOCOLS, temporary):
        each.mkdir(mode=0o700, exist_ok=True)


def use_temporary_directory(directory: Path) -> None:
    """Have temporary files go to the identity's directory for them, those of programs that the process starts too."""
    os.environ["TMPDIR"] = str(directory / TEMPORARY)
    tempfile.tempdir = None


async def open_socket(context: ActorContext, loop: asyncio.AbstractEventLoop, path: Path) -> socket.socket:
    """Return a socket that the supervisor has connected to ``path``. Works in every thread's event loop.

    Raises:
        OSError: it could not connect, or this process may not connect there.
    """
    if asyncio.get_running_loop() is loop:
        return await context.open_socket(path)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(context.open_socket(path), loop))
