"""Marker of the binding whose code is running, in a file that outlives the process."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final, TypeAlias

BindingName: TypeAlias = tuple[str, str]
"""Protocol and instance."""

_MARK: Final = struct.Struct("=I")
"""Code that runs: 65,536 times the number of the binding's name, plus the number of the place; 0 for none."""
_SIZE: Final = 16 * 1024
"""Bytes of the file: the mark, then the names, a line each. The first name has number 1."""

log = logging.getLogger(__name__)


class RunningMarker:
    """File that names the binding whose code is running, mapped into memory.

    A write to the mapping costs nothing, and the kernel keeps it however the process ends.

    Attributes:
        current: one number, the mark of the code that is running now; 0 for none.
    """

    def __init__(self, path: Path) -> None:
        """Replace the file with a new one, all zeros."""
        self._path = path
        self._numbers: dict[str, int] = {}
        self._end = _MARK.size
        self._map = self._create()
        self.current = memoryview(self._map)[: _MARK.size].cast("I")

    def mark(self, name: BindingName, code_name: str) -> int:
        """Return the mark of a place in the binding's code."""
        return self._number(f"{name[0]}/{name[1]}") << 16 | self._number(code_name)

    def running(self) -> BindingName | None:
        """Return the binding whose code is running now; None if none is."""
        number = self.current[0] >> 16
        for name, each in self._numbers.items():
            if each == number:
                protocol, _, instance = name.partition("/")
                return protocol, instance
        return None

    def close(self) -> None:
        """Remove the file: the process ends in order."""
        self.current[0] = 0
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _number(self, name: str) -> int:
        """Return the number of a name; 0, which marks no code, if there is no room for more names."""
        number = self._numbers.get(name)
        if number is None:
            line = name.encode() + b"\n"
            if self._end + len(line) > _SIZE:
                return 0
            self._map[self._end : self._end + len(line)] = line
            self._end += len(line)
            number = self._numbers[name] = len(self._numbers) + 1
        return number

    def _create(self) -> mmap.mmap:
        """Return the mapped file. If the disk has no room for it, map anonymous memory: crashes are not attributed."""
        try:
            self._path.unlink(missing_ok=True)
            with self._path.open("x+b") as file:
                os.posix_fallocate(file.fileno(), 0, _SIZE)  # a write to a page without disk space kills the process
                return mmap.mmap(file.fileno(), _SIZE)
        except OSError as error:
            log.warning("%s cannot be written, so crashes cannot be attributed: %s", self._path, error.strerror)
            return mmap.mmap(-1, _SIZE)


def read_marker(path: Path) -> tuple[BindingName, str] | None:
    """Return the binding and the place that an earlier process has marked; None if it marked none."""
    try:
        content = path.read_bytes()
        binding, code_name = divmod(_MARK.unpack_from(content)[0], 1 << 16)
        names = content[_MARK.size :].rstrip(b"\0").decode().splitlines()
        protocol, _, instance = names[binding - 1].partition("/") if binding else ("", "", "")
        return ((protocol, instance), names[code_name - 1]) if instance and code_name else None
    except (OSError, struct.error, UnicodeDecodeError, IndexError):
        return None
