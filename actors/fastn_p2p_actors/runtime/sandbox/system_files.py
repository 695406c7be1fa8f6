"""Files of the system and of Python that every process of the daemon reads, also long after its start.

Modules are imported late, time zones and certificates are read when they are needed, and the resolver reads its
configuration again after a change.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Final

from .landlock import READ, READ_FILE, TRUNCATE, WRITE, WRITE_FILE

LIBRARIES: Final = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/lib", "/lib64")
"""Directories of shared libraries."""
_SHARED: Final = ("/usr/share", "/usr/local/share", "/nix/store", "/gnu/store")
_SETTINGS: Final = (
    *("resolv.conf", "hosts", "host.conf", "nsswitch.conf", "gai.conf", "services", "protocols", "networks"),
    *("localtime", "timezone", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl", "pki", "ca-certificates"),
    *("crypto-policies", "passwd", "group", "mime.types", "os-release", "locale.conf", "locale.alias", "machine-id"),
    *("alternatives", "fonts", "gitconfig", "hostname", "krb5.conf", "lsb-release", "magic", "terminfo"),
)
"""Files of ``/etc`` that a process needs. All of it, and of ``/usr``, is allowed unless this is root, who may read more
than others."""
_STATE: Final = (
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/ca-certificates",
)
"""Directories to which ``/etc/resolv.conf`` and certificates may lead."""
_VARIABLES: Final = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "LD_LIBRARY_PATH"),
    *("PYTHONTZPATH", "TZDIR", "LOCPATH"),
)
"""Variables of the environment that name files like these, several with colons between them."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full")
_RANDOM: Final = ("/dev/random", "/dev/urandom")
_KERNEL: Final = (
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/class/net", "/sys/devices/virtual/net", "/sys/kernel/mm"),
    *("/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version"),
    *("/proc/filesystems",),
)

_own_process: list[int] = []
"""Descriptor of this process's directory in ``/proc``. The kernel makes a new inode for it, to which the rule does not
apply, once nothing holds the old one."""


def python_files(home: Path | None = None) -> Iterator[tuple[Path, int]]:
    """Yield where Python imports from now: its library, site directories, and every directory of ``sys.path``.

    Args:
        home: home of the daemon, which none of it contains. Packages can lie in a directory above it.
    """
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    paths += [each for each in sys.path if each]
    for path in dict.fromkeys(os.path.realpath(path) for path in paths):
        if path in ("/", "/usr", "/usr/local"):
            continue  # Python's prefix, whose library is in one of the directories below
        for each in around(Path(path), home):
            yield each, READ
    for finder in sys.meta_path:
        for package in _editable_packages(finder):
            for each in around(package, home):
                yield each, READ
    yield Path(os.path.realpath(sys.executable)), READ
    yield Path(sys.prefix, "pyvenv.cfg"), READ


def _editable_packages(finder: object) -> Iterator[Path]:
    """Yield the packages and modules that setuptools installed as editable: its finder has a table of them."""
    module = sys.modules.get(getattr(finder, "__module__", ""))
    table = getattr(module, "MAPPING", None)
    for each in table.values() if isinstance(table, dict) else ():
        yield Path(each)
        yield from (Path(f"{each}{suffix}") for suffix in all_suffixes())


def around(path: Path, home: Path | None) -> Iterator[Path]:
    """Yield the path; if it contains the home, yield its other entries. Yield nothing of the vault's directory."""
    if home is None or not (home.is_relative_to(path) or path.is_relative_to(home / "vault")):
        yield path
    elif path.is_relative_to(home):
        return
    else:
        with suppress(OSError):
            for each in path.iterdir():
                yield from around(each, home)


def system_files() -> Iterator[tuple[Path, int]]:
    """Yield libraries, settings, devices and the like. They contain no secret of a user."""
    for path in (*LIBRARIES, *_SHARED, *_STATE, *_RANDOM, *_KERNEL, *_library_directories()):
        yield Path(path), READ
    for path in _DEVICES:
        yield Path(path), READ_FILE | WRITE_FILE | TRUNCATE
    if os.geteuid():
        for path in ("/etc", "/usr"):
            yield Path(path), READ
    for name in _SETTINGS:
        setting = Path("/etc", name)
        yield setting, READ
        yield Path(os.path.realpath(setting)), READ
    for name in _VARIABLES:
        for path in filter(os.path.isabs, os.environ.get(name, "").split(os.pathsep)):
            yield Path(path), READ


def settings_with_own_rules() -> tuple[Path, ...]:
    """Return the settings that are often replaced while a machine runs, if each has a rule of its own.

    A DHCP client replaces ``resolv.conf``, and a rule is for the file that was there.
    """
    if os.geteuid():
        return ()
    files = [Path("/etc", name) for name in ("resolv.conf", "hosts", "nsswitch.conf")]
    return tuple(each for each in files if os.path.realpath(each) == str(each))  # links lead to whole directories


def _library_directories() -> Iterator[str]:
    """Yield further directories of shared libraries, as ldconfig(8) is told of them: those of CUDA, for instance."""
    for file in sorted(Path("/etc/ld.so.conf.d").glob("*.conf")):
        with suppress(OSError):
            yield from filter(os.path.isabs, map(str.strip, file.read_text(errors="replace").splitlines()))


def hold_own_process() -> None:
    """Keep what ``/proc`` says of this process allowed, after a rule for it."""
    if not _own_process:
        _own_process.append(os.open(f"/proc/{os.getpid()}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def own_process(pid: int | None = None) -> Iterator[tuple[Path, int]]:
    """Yield what ``/proc`` says of this process, and hold it; or of the process ``pid``, which has to hold it."""
    if pid is None:
        hold_own_process()
    yield Path(f"/proc/{pid or os.getpid()}"), READ


def all_processes() -> Iterator[tuple[Path, int]]:
    """Yield ``/proc``. Landlock itself keeps the memory and the environment of other processes closed."""
    yield Path("/proc"), READ


def traces() -> Iterator[tuple[Path, int]]:
    """Yield the directory for time stamps of calls, if there is one: see ``fastn_p2p_client.ipc.latency_trace``."""
    if directory := os.environ.get("FASTN_TRACE"):
        yield Path(directory), WRITE
