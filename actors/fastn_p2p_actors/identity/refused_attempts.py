"""Attempts of protocol code that its sandbox refuses: each is reported once, with the permission that would allow it.

Problem: the kernel tells only the code that it has refused something, and code may swallow the error. Then a protocol
that was written before there were sandboxes works no more, and nothing says why. Idea: Python announces what its
functions are about to do (audit events, PEP 578). Each announcement is compared with the sandbox. Cost: a dictionary
lookup for each event, and some system calls when a file is opened. Not covered: code that calls the kernel by itself,
native libraries, and connections of the event loop. The kernel refuses them all the same.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..runtime.sandbox.landlock import (
    EXECUTE,
    MAKE_DIR,
    MAKE_REG,
    READ_DIR,
    READ_FILE,
    REMOVE_DIR,
    REMOVE_FILE,
    TRUNCATE,
    WRITE_FILE,
)
from ..runtime.sandbox.sandbox import Sandbox

MAX_ATTEMPTS: Final = 100
"""Different attempts that are reported of one process."""
_NO_DIRECTORY: Final = -1
"""Argument of an event about a path that is not relative to a descriptor."""

_Finder: TypeAlias = Callable[["RefusedAttempts", tuple[Any, ...]], str]


class RefusedAttempts:
    """Watches the attempts of the code in this process. There is no way to end that.

    Args:
        sandbox: the sandbox of this process.
        rights: what its ``real_paths`` returned.
        is_watched: return whether code of a protocol is running in this thread.
        on_attempt: called with the permission that is missing, ``read /srv/photos``, or with a few words for what no
            permission allows. Called in the thread of the code.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        rights: Mapping[str, int],
        is_watched: Callable[[], bool],
        on_attempt: Callable[[str], None],
    ) -> None:
        self._sandbox = sandbox
        self._rights = rights
        self._is_watched = is_watched
        self._on_attempt = on_attempt
        self._reported: set[str] = set()
        self._looking = threading.local()

    def watch(self) -> None:
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        find = _FINDERS.get(event)
        if find is None or len(self._reported) >= MAX_ATTEMPTS or hasattr(self._looking, "now"):
            return
        self._looking.now = True
        try:
            if self._is_watched():
                self._report(find(self, arguments))
        except Exception:  # noqa: S110  # an exception would end what the code is doing
            pass
        finally:
            del self._looking.now

    def _report(self, attempt: str) -> None:
        if attempt and attempt not in self._reported:
            self._reported.add(attempt)
            self._on_attempt(attempt)

    # ── files ────────────────────────────────────────────────────────────────────────────────────────

    def _opened(self, arguments: tuple[Any, ...]) -> str:
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if flags & os.O_PATH:
            return ""
        return self._file(path, reads=not flags & os.O_WRONLY, writes=bool(writes), creates=bool(flags & os.O_CREAT))

    def _connected_database(self, arguments: tuple[Any, ...]) -> str:
        return self._file(arguments[0], reads=True, writes=True, creates=True)

    def _listed(self, arguments: tuple[Any, ...]) -> str:
        return self._file(arguments[0], reads=True)

    def _file(self, path: Any, *, reads: bool = False, writes: bool = False, creates: bool = False) -> str:
        absolute = _absolute(path)
        if not absolute or _is_compiled(absolute):
            return ""
        if not os.path.lexists(absolute):
            above = Path(absolute).parent
            missing = creates and above.is_dir() and not self._allows(str(above), MAKE_REG)
            return f"write {absolute}" if missing else ""
        reading = READ_DIR if Path(absolute).is_dir() else READ_FILE
        if self._allows(absolute, (reading if reads else 0) | (WRITE_FILE if writes else 0)):
            return ""
        return f"{'write' if writes else 'read'} {absolute}"

    def _changed(self, path: Any, right: int, directory: int = _NO_DIRECTORY) -> str:
        """Return the permission for a change of the entry ``path``, which needs a right to what contains it."""
        above, name = os.path.split(os.fsdecode(path))
        parent = _absolute(above) if directory == _NO_DIRECTORY else ""
        if _is_compiled(f"{parent}{os.sep}{name}"):
            return ""
        return "" if not parent or self._allows(parent, right) else f"write {os.path.join(parent, name)}"  # noqa: PTH118

    def _allows(self, absolute: str, rights: int) -> bool:
        """Return whether the sandbox gives all of these rights to the path, or to directories that contain it."""
        while rights:
            rights &= ~self._rights.get(absolute, 0)
            above = os.path.dirname(absolute)  # noqa: PTH120
            if above == absolute:
                break
            absolute = above
        return not rights

    # ── programs, signals, sockets ───────────────────────────────────────────────────────────────────

    def _program(self, name: Any) -> str:
        text = os.fsdecode(name)
        absolute = os.path.realpath(text if os.path.isabs(text) else shutil.which(text) or text)  # noqa: PTH117
        return "" if self._sandbox.programs and self._allows(absolute, EXECUTE) else f"program {absolute}"

    def _started(self, arguments: tuple[Any, ...]) -> str:
        executable, command = arguments[:2]
        return self._program(executable or (command if isinstance(command, str | bytes) else command[0]))

    def _signalled(self, arguments: tuple[Any, ...]) -> str:
        pid = arguments[0]
        return "" if pid in (0, os.getpid()) or self._sandbox.programs else "a signal to another process"

    def _connected(self, arguments: tuple[Any, ...]) -> str:
        made, address = arguments
        if made.family == socket.AF_UNIX or (made.type & 0xF) != socket.SOCK_STREAM:
            return ""
        allowed = self._sandbox.connect
        return "" if allowed is None or address[1] in allowed else f"connect {_host(address[0])}:{address[1]}"

    def _bound(self, arguments: tuple[Any, ...]) -> str:
        made, address = arguments
        if made.family == socket.AF_UNIX or (made.type & 0xF) != socket.SOCK_STREAM:
            return ""
        allowed = self._sandbox.listen
        return "" if allowed is None or address[1] in allowed else f"listen {_host(address[0] or '*')}:{address[1]}"

    def _resolved(self, arguments: tuple[Any, ...]) -> str:
        host, port = arguments[:2]
        if self._sandbox.udp or not host or _is_address(host):
            return ""
        return f"connect {os.fsdecode(host)}:{port}" if isinstance(port, int) and port else f"the address of {host}"


def _is_compiled(absolute: str) -> bool:
    """Return whether a path belongs to compiled modules. An import goes on if it cannot write them."""
    return f"{os.sep}__pycache__{os.sep}" in f"{absolute}{os.sep}"


def _absolute(path: Any) -> str:
    """Return the file to which an absolute path leads; empty for other paths and for descriptors."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    text = os.fsdecode(path)
    return os.path.realpath(text) if os.path.isabs(text) else ""  # noqa: PTH117


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_address(host: Any) -> bool:
    if host in ("localhost", b"localhost"):
        return True
    try:
        ipaddress.ip_address(os.fsdecode(host).partition("%")[0])
    except ValueError:
        return False
    return True


_FINDERS: Final[dict[str, _Finder]] = {
    "open": RefusedAttempts._opened,
    "sqlite3.connect": RefusedAttempts._connected_database,
    "os.listdir": RefusedAttempts._listed,
    "os.scandir": RefusedAttempts._listed,
    "os.mkdir": lambda watched, args: watched._changed(args[0], MAKE_DIR, args[2]),
    "os.remove": lambda watched, args: watched._changed(args[0], REMOVE_FILE, args[1]),
    "os.rmdir": lambda watched, args: watched._changed(args[0], REMOVE_DIR, args[1]),
    "os.truncate": lambda watched, args: watched._changed(args[0], TRUNCATE),
    "os.rename": lambda watched, args: (
        watched._changed(args[0], REMOVE_FILE, args[2]) or watched._changed(args[1], MAKE_REG, args[3])
    ),
    "os.link": lambda watched, args: (
        watched._changed(args[0], MAKE_REG, args[2]) or watched._changed(args[1], MAKE_REG, args[3])
    ),
    "subprocess.Popen": RefusedAttempts._started,
    "os.exec": lambda watched, args: watched._program(args[0]),
    "os.posix_spawn": lambda watched, args: watched._program(args[0]),
    "os.fork": lambda watched, _: "" if watched._sandbox.programs else "a fork",
    "os.kill": RefusedAttempts._signalled,
    "socket.connect": RefusedAttempts._connected,
    "socket.bind": RefusedAttempts._bound,
    "socket.getaddrinfo": RefusedAttempts._resolved,
}
"""Functions that return what is missing for an event, by its name; empty if it is allowed."""
