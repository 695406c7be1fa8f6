"""Preparation of an identity's sandbox, which a fork of its process does.

Problem: reading permissions, listing what Python and the system need, and assembling the filter of system calls takes
some milliseconds, once. It touched 260 pages of memory that the process shares with the fork server, a megabyte.
Idea: a fork of the process does it and sends the result. Where that fails, the process does it itself, and reports the
errors.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.permissions import Permissions

from ..runtime import site_packages
from ..runtime.forked_work import run_in_fork
from ..runtime.sandbox.granted_paths import without_replaceable
from ..runtime.sandbox.roles import identity_sandbox
from ..runtime.sandbox.sandbox import CompiledSandbox, Sandbox, compile_sandbox
from ..runtime.sandbox.system_files import hold_own_process, python_files, settings_with_own_rules
from ..runtime.separate_users import own_account
from ..storage.identity_store import IdentityStore
from ..storage.permission_store import PermissionStore
from .declared_permissions import declared_by_builtins
from .sandboxed_process import make_directories


class PreparedSandbox(msgspec.Struct, frozen=True, array_like=True):
    """Sandbox of an identity's process, with what the process has to know of it.

    Attributes:
        granted: permissions of all bindings together.
        code_files: where Python imports from.
        watched: paths whose replacement needs a restart.
        rights: Landlock rights by path, with links resolved.
        program: filter of system calls.
        missing: what cannot be closed, and why.
        has_new_packages: packages were installed or removed since the start of the fork server.
        programs, connect, listen, udp: as in ``Sandbox``.
        ruleset: descriptor of the Landlock rules; -1 if there are none.
    """

    granted: tuple[str, ...]
    code_files: frozenset[str]
    watched: tuple[str, ...]
    rights: dict[str, int]
    program: bytes
    missing: tuple[str, ...]
    has_new_packages: bool
    programs: bool
    connect: frozenset[int] | None
    listen: frozenset[int] | None
    udp: bool
    ruleset: int = -1

    def compiled(self) -> CompiledSandbox:
        return CompiledSandbox(self.ruleset, self.program, self.missing)

    def sandbox(self) -> Sandbox:
        """Return the sandbox without its files, which ``rights`` has."""
        return Sandbox(programs=self.programs, connect=self.connect, listen=self.listen, udp=self.udp)


_decoder: Final = msgspec.msgpack.Decoder(PreparedSandbox)


def prepare(home: Home, identity: str) -> PreparedSandbox:
    """Return the sandbox for this process. Makes the identity's directories, and deletes old temporary files.

    Raises:
        StorageDamaged, StorageFailed: the identity's permissions cannot be read or written.
    """
    hold_own_process()
    work = partial(work_out, home, identity, os.getpid())
    done = run_in_fork(work)
    encoded, ruleset = done if done is not None else work()
    return msgspec.structs.replace(_decoder.decode(encoded), ruleset=ruleset)


def work_out(home: Home, identity: str, pid: int) -> tuple[bytes, int]:
    """Return a ``PreparedSandbox`` for the process ``pid`` in msgpack, and the descriptor of its rules.

    Raises as ``prepare``.
    """
    store, permissions = IdentityStore(home), PermissionStore(home)
    if own_account() is None:
        granted_file = permissions.complete(identity, lambda: declared_by_builtins(store, identity))
    else:
        granted_file = permissions.read(identity)  # the gateway writes it
    granted = granted_file.all_lines()
    has_new_packages = site_packages.refresh()  # packages whose files it may read then
    directory = home.identities / identity
    make_directories(directory, empty=True)
    files = frozenset(str(file) for file, _ in python_files(Path(os.path.realpath(home.path))))
    kept = without_replaceable(Permissions.of(granted), (directory,))
    watched = (*kept.read, *kept.write, *kept.programs, *settings_with_own_rules())
    sandbox = identity_sandbox(home, identity, granted, pid)
    compiled = compile_sandbox(sandbox, pid)
    prepared = PreparedSandbox(
        granted,
        files,
        tuple(os.fspath(each) for each in watched),
        sandbox.real_paths(),
        compiled.program,
        compiled.missing,
        has_new_packages,
        sandbox.programs,
        sandbox.connect,
        sandbox.listen,
        sandbox.udp,
    )
    return msgspec.msgpack.encode(prepared), compiled.ruleset
