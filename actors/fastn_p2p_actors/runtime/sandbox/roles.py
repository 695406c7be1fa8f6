"""Sandboxes of the daemon's processes, by role.

Every process reads Python's library and files of the system, writes its log, and uses the directory of the daemon's
sockets. The functions say what comes on top.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_client.home import Home
from fastn_p2p_client.permissions import ANYWHERE, Permissions, needs_resolver, port_of

from .granted_paths import without_replaceable
from .landlock import (
    EXECUTE,
    MAKE_SOCK,
    READ,
    READ_DIR,
    READ_FILE,
    REMOVE_FILE,
    TRUNCATE,
    WRITE,
    WRITE_FILE,
    WRITE_WITHOUT_LINKS,
    combine,
)
from .sandbox import INTERNET, Sandbox
from .system_files import LIBRARIES, all_processes, around, own_process, python_files, system_files, traces

_SOCKETS: Final = READ | MAKE_SOCK | REMOVE_FILE
"""Rights to the directory of the sockets: bind one, and remove it."""
_LOCAL: Final = frozenset({socket.AF_UNIX})


def vault_sandbox(home: Home) -> Sandbox:
    """Return the sandbox of the vault: its directory, credentials of the service manager, and its mailbox."""
    own = [(home.vault, WRITE_WITHOUT_LINKS), *_rules(READ, os.environ.get("CREDENTIALS_DIRECTORY"))]
    return Sandbox(combine(_core(home).items(), own), families=_LOCAL)


def network_sandbox(home: Home, host_directory: Path) -> Sandbox:
    """Return the sandbox of the network process: ``peers/``, ``run/``, the host directory, TCP and UDP sockets.

    Args:
        home: home of the daemon.
        host_directory: directory in which the user's daemons find each other. It exists.
    """
    own = [(each, WRITE_WITHOUT_LINKS) for each in (home.peers, home.path / "run", host_directory)]
    return Sandbox(combine(_core(home).items(), own), families=INTERNET, connect=None, listen=None)


def gateway_sandbox(home: Home) -> Sandbox:
    """Return the sandbox of the gateway: ``identities/``, what ``run/`` says, and Unix sockets.

    It may make ``control.sock`` in the home, but not remove files there: keys are below.
    """
    own = [(home.identities, WRITE_WITHOUT_LINKS), (home.path / "run", READ), (home.sockets, MAKE_SOCK)]
    return Sandbox(combine(_core(home).items(), own), families=_LOCAL)


def identity_sandbox(home: Home, identity: str, granted: Iterable[str], pid: int | None = None) -> Sandbox:
    """Return the sandbox of an identity's process: its workspaces, and what its bindings were granted.

    Args:
        home: home of the daemon.
        identity: name of the identity.
        granted: lines of ``Permissions``.
        pid: process of the identity, which has called ``hold_own_process``; None for this one.
    """
    own = home.identities / identity
    log_file = home.logs / f"identity-{identity}.log"
    return _protocol_code(
        granted,
        home.path,
        own,
        [(own, READ), *_workspaces(own)],
        [(log_file, READ_FILE | WRITE_FILE | TRUNCATE)],
        [(home.lock, READ_FILE), (home.socket_directory_file, READ_FILE)],
        pid=pid,
    )


def code_sandbox(home: Path | None, identity: Path | None = None, granted: Iterable[str] = ()) -> Sandbox:
    """Return the sandbox of a process that runs protocol code once.

    Args:
        home: home of the daemon, if there is one.
        identity: directory of the identity, if the code is asked about a binding.
        granted: lines of ``Permissions``.
    """
    return _protocol_code(granted, home, identity, () if identity is None else _workspaces(identity))


def _workspaces(identity: Path) -> list[tuple[Path, int]]:
    """Return what every process with code of an identity may use of its directory."""
    return [(identity / PROTOCOLS, WRITE), (identity / TEMPORARY, WRITE)]


def _protocol_code(
    granted: Iterable[str],
    home: Path | None,
    identity: Path | None,
    *own: Iterable[tuple[Path, int]],
    pid: int | None = None,
) -> Sandbox:
    home = None if home is None else Path(os.path.realpath(home))
    permissions = without_replaceable(Permissions.of(granted), () if identity is None else (identity,))
    programs = [Path(os.path.realpath(each)) for each in permissions.programs]
    connect, listen = list(permissions.connect), list(permissions.listen)
    files = combine(
        python_files(home),
        system_files(),
        all_processes() if programs else own_process(pid),
        traces(),
        *own,
        _granted_rules(READ, permissions.read, home),
        _granted_rules(WRITE, permissions.write, home),
        [(each, READ | EXECUTE) for each in programs],
        [(Path(each), READ | EXECUTE) for each in LIBRARIES] if programs else [],
    )
    anywhere = ANYWHERE in connect
    return Sandbox(
        files,
        programs=bool(programs),
        connect=None if anywhere else _ports(connect),
        listen=_ports(listen),
        udp=anywhere or any(map(needs_resolver, connect)),
    )


PROTOCOLS: Final = "protocols"
"""Directory of an identity that has the workspaces of its bindings."""
TEMPORARY: Final = ".tmp"
"""Directory beside ``protocols`` of an identity, for temporary files of its process."""


def _core(home: Home) -> dict[Path, int]:
    """Return what every process without protocol code needs."""
    return combine(
        python_files(Path(os.path.realpath(home.path))),
        system_files(),
        all_processes(),
        traces(),
        [(home.logs, WRITE_WITHOUT_LINKS), (home.sockets / "run", _SOCKETS), (home.lock, READ_FILE)],
        [(home.socket_directory_file, READ_FILE)],
    )


def _rules(rights: int, *paths: str | os.PathLike[str] | None) -> Iterator[tuple[Path, int]]:
    for path in paths:
        if path:
            yield Path(path), rights


def _granted_rules(
    rights: int, paths: Iterable[str | os.PathLike[str]], home: Path | None
) -> Iterator[tuple[Path, int]]:
    """Yield a rule for each path. Where one contains the daemon's home, allow its names and its other entries."""
    for each_path in paths:
        path = Path(os.path.realpath(each_path))
        beside = list(around(path, home))
        if beside != [path]:
            yield path, READ_DIR
        for each in beside:
            yield each, rights


def _ports(addresses: Iterable[str]) -> frozenset[int]:
    return frozenset(port for port in map(port_of, addresses) if port is not None)
