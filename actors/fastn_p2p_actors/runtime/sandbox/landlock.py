"""Landlock: access of this process to files, TCP ports, abstract Unix sockets and signals of others (landlock(7)).

Three system calls through ctypes. A process never gets a dropped right back, nor do the processes that it starts. Only
the calling thread is restricted, so it has to be the only one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_GET_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NET_PORT: Final = 2

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
_ALL: Final = {1: REFER - 1, 2: TRUNCATE - 1, 3: IOCTL_DEV - 1, 5: (IOCTL_DEV << 1) - 1}
"""Rights to files, by the first version of the interface (ABI) that has them."""
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule for a file, not a directory, may have."""

READ: Final = READ_FILE | READ_DIR
WRITE: Final = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
)
"""Everything that a process does with files of its own."""
WRITE_WITHOUT_LINKS: Final = WRITE & ~(MAKE_SYM | MAKE_FIFO)
"""The same without links and pipes. A process without a sandbox, such as the supervisor, would write through a link."""

_BIND_TCP: Final = 1 << 0
_CONNECT_TCP: Final = 1 << 1
_SCOPES: Final = (1 << 0) | (1 << 1)
"""Abstract Unix sockets of others, and signals to others."""
LEAST_VERSION: Final = 3
"""Earlier versions let a process empty every file that its user may write (Linux before 6.2)."""
PORTS_VERSION: Final = 4
SIGNALS_VERSION: Final = 6

_libc = ctypes.CDLL(None, use_errno=True)


class LandlockFailed(OSError):
    """The kernel did not restrict this process."""


@dataclass(frozen=True)
class LandlockRules:
    """Accesses that stay allowed.

    Attributes:
        files: rights by path. A path that does not exist is left out. Rights hold for everything below a directory.
        connect, listen: TCP ports; None for all.
    """

    files: dict[Path, int] = field(default_factory=dict)
    connect: frozenset[int] | None = frozenset()
    listen: frozenset[int] | None = frozenset()


def version() -> int:
    """Return the version of the kernel's interface; 0 if it has none, or if Landlock is switched off."""
    found: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_GET_VERSION))
    return max(found, 0)


def make_ruleset(rules: LandlockRules, abi: int) -> int:
    """Return a new descriptor for ``restrict``. It restricts nothing by itself.

    Args:
        rules: what stays allowed.
        abi: ``version()``; newer kernels restrict more.

    Raises:
        LandlockFailed: the kernel does not accept the rules.
    """
    rights = max(value for first, value in _ALL.items() if first <= abi)
    net = 0
    if abi >= PORTS_VERSION:
        net = (0 if rules.listen is None else _BIND_TCP) | (0 if rules.connect is None else _CONNECT_TCP)
    scopes = _SCOPES if abi >= SIGNALS_VERSION else 0
    attributes = struct.pack("=QQQ", rights, net, scopes)
    size = 24 if scopes else 16 if net else 8
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, allowed in rules.files.items():
            _add_path(ruleset, path, allowed & rights)
        for right, ports in ((_BIND_TCP, rules.listen), (_CONNECT_TCP, rules.connect)):
            for port in ports or () if net & right else ():
                _add(ruleset, _NET_PORT, struct.pack("=QQ", right, port))
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def restrict(ruleset: int) -> None:
    """Restrict this thread, and all that it starts. Close the descriptor.

    Raises:
        LandlockFailed: nothing was restricted.
    """
    try:
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def combine(*parts: Iterable[tuple[Path, int]]) -> dict[Path, int]:
    """Return the rights of all parts together."""
    found: dict[Path, int] = {}
    for part in parts:
        for path, rights in part:
            found[path] = found.get(path, 0) | rights
    return found


def _add_path(ruleset: int, path: Path, rights: int) -> None:
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _OF_FILES
            if rights:
                _add(ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor))
        finally:
            os.close(descriptor)


def _add(ruleset: int, kind: int, rule: bytes) -> None:
    _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(kind), ctypes.c_char_p(rule), ctypes.c_uint32(0))


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise LandlockFailed(code, f"Landlock: {os.strerror(code) if code != errno.EOPNOTSUPP else 'switched off'}")
    return result
