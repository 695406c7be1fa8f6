"""Modules that the fork server loads once, so that each child has them without cost.

Importing this module loads them, in the fork server only. It must not start a thread: a fork copies only the calling
thread, together with the locks that other threads held. So no ZeroMQ context and no iroh.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import logging
import multiprocessing
import os
import socket
import struct
import sys
import tempfile
import threading
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import Any, Final

from .fork_heap import CodeRecorder, arrange, fill
from .process_order import carry_out

MODULES: Final = (
    "asyncio",
    "logging.handlers",
    "multiprocessing.forkserver",
    "uvloop",
    "msgspec",
    "zmq",
    "fastn_p2p_client.errors",
    "fastn_p2p_client.home",
    "fastn_p2p_client.keys",
    "fastn_p2p_client.limits",
    "fastn_p2p_client.ipc.messages.control",
    "fastn_p2p_client.ipc.messages.data",
    "fastn_p2p_actors.runtime.specs",
    "fastn_p2p_actors.runtime.site_packages",
    "fastn_p2p_actors.runtime.actor",
    "fastn_p2p_actors.runtime.mailbox",
    "fastn_p2p_actors.identity",
    "fastn_p2p_actors.runtime.grants",
    "fastn_p2p_actors.credentials.sodium",
    "fastn_p2p_actors.credentials.curve_client",
    "fastn_p2p_actors.credentials.key_transfer",
    "fastn_p2p_actors.credentials.invitation",
    "fastn_p2p_actors.credentials.record_packet",
    "fastn_p2p_actors.vault.actor",
    "fastn_p2p_actors.gateway",
)
"""The network process loads its own modules itself: they need iroh."""

_NOT_REHEARSED: Final = (
    "threading",
    "signal",
    "selectors",
    "fastn_p2p_actors.runtime.actor",
    "fastn_p2p_actors.runtime.control_channel",
    "fastn_p2p_actors.runtime.log_files",
    "fastn_p2p_actors.runtime.process_setup",
    "fastn_p2p_actors.runtime.sandbox.replaced_files",
    "fastn_p2p_actors.runtime.sandbox.sandbox",
    "fastn_p2p_actors.identity.refused_attempts",
    "fastn_p2p_actors.identity.resource_limits",
    "fastn_p2p_actors.identity.sandboxed_process",
    "fastn_p2p_actors.identity.fork_guard",
    "fastn_p2p_supervisor.process_order",
)
"""Modules whose functions a child runs beside what is rehearsed."""

_WARMING_ROUNDS: Final = 9
"""Rehearsals with the code at its new place. The interpreter specializes code that has run eight times: it then looks
up no names, and so counts no references to them."""

REQUEST_SECONDS: Final = 5.0
"""Seconds that the supervisor may take to send a request after it has connected."""

MEMORY_DIRECTORY: Final = "/dev/shm"  # noqa: S108  (the directory in it is private)
"""Directory for temporary files whose file system is memory, where there is one."""

MAX_TEMPORARY_PATH: Final = 60
"""Characters of the longest directory for temporary files in which there can be sockets."""

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""

_fork = os.fork
_receive = reduction.recvfds


def receive_from_supervisor(connection: socket.socket, most: int) -> list[int]:
    """Return the descriptors of one request: ``multiprocessing.reduction.recvfds`` for the fork server's loop.

    Any process of this user can connect to the fork server's socket. The loop would end, with all children, at the
    first process that sends something else. It would wait for ever for one that sends nothing. So this asks the kernel
    which process has connected, and reads from the supervisor only. A rejection raises the error that the loop ignores.
    """
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(found)
    if (pid, user) != (os.getppid(), os.getuid()):
        raise OSError(errno.ECONNABORTED, f"process {pid} of user {user} is not the supervisor")
    connection.settimeout(REQUEST_SECONDS)
    try:
        descriptors = list(_receive(connection, most))
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise OSError(errno.ECONNABORTED, f"no request: {error}") from error
    if not 2 <= len(descriptors) < most:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.ECONNABORTED, f"a request with {len(descriptors)} descriptors")
    return descriptors


def fork_or_refuse() -> int:
    """Fork for ``multiprocessing``'s fork server, whose loop calls this instead of ``os.fork``.

    If the kernel has no process to give, the loop would end, and all children with it. This rejects the request
    instead: it closes the descriptors, so that the supervisor sees the end of its pipes, and raises the error that the
    loop ignores.
    """
    try:
        pid = _fork()
    except OSError as error:
        request = sys._getframe(1).f_locals
        for descriptor in (request["child_r"], request["child_w"], *request["fds"]):
            os.close(descriptor)
        raise OSError(errno.ECONNABORTED, f"no new process: {error.strerror}") from error
    if pid == 0:
        os.fork = _fork
        reduction.recvfds = _receive
    return pid


def _rehearse() -> None:
    import uvloop

    from fastn_p2p_actors.identity.rehearsal import rehearse

    with tempfile.TemporaryDirectory(dir=_find_directory()) as directory:
        uvloop.run(rehearse(Path(directory)))


def _find_directory() -> str:
    """Return the directory for the rehearsal's files. In memory it takes half the time, and waits for no disk."""
    if os.access(MEMORY_DIRECTORY, os.W_OK | os.X_OK):
        return MEMORY_DIRECTORY
    usual = tempfile.gettempdir()
    return usual if len(usual) <= MAX_TEMPORARY_PATH else "/tmp"  # noqa: S108  (the directory in it is private)


def load() -> None:
    """Load everything that children need, run what they will run, and arrange the heap for them.

    Without the rehearsal children work as well, and need more memory.
    """
    from fastn_p2p_actors.runtime import process_setup

    logging.getLogger().setLevel(logging.INFO)  # the level that most children have
    for module in MODULES:
        with contextlib.suppress(Exception):  # the child that needs it imports it again and reports the error
            importlib.import_module(module)
    with CodeRecorder() as recorder, contextlib.suppress(Exception):
        _rehearse()
    recorder.add_modules(_NOT_REHEARSED)
    arrange(recorder.codes)
    sys._clear_type_cache()  # a child that replaces an entry would write to it, and to the old and the new name
    with contextlib.suppress(Exception):
        for _ in range(_WARMING_ROUNDS):
            _rehearse()
    gc.collect()
    fill()
    process_setup.trim_heap()  # 0.7 MB that the rehearsals took


def has_one_thread() -> bool:
    """Return whether this process has no thread but the calling one, also none of a library."""
    return threading.active_count() == 1 and len(list(Path("/proc/self/task").iterdir())) == 1


def become_fork_server() -> None:
    """Set up this process, which has loaded what children need, as the fork server.

    Raises:
        RuntimeError: a second thread runs.
    """
    from fastn_p2p_actors.runtime import process_setup

    process_setup.mark_fork_server()
    process_setup.die_with_parent()  # also if the supervisor is killed while the fork server is busy
    process_setup.make_undumpable()
    process_setup.set_title("forks")
    process_setup.raise_file_limit()
    process_setup.forbid_core_files()
    if not has_one_thread():
        raise RuntimeError("a preloaded module has started a thread: children would hang")
    multiprocessing.set_start_method(
        "forkserver", force=True
    )  # for protocol code: a fork would have its threads' locks
    os.fork = fork_or_refuse
    server: Any = forkserver
    server._serve_one = carry_out
    reduction.recvfds = receive_from_supervisor  # type: ignore[assignment]
    gc.freeze()  # keeps the collector from writing to, and so copying, pages that children share


if any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
    load()
    become_fork_server()
