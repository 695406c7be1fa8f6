"""Code of the fork server that can run outside it."""

import errno
import json
import os
import subprocess
import sys

import pytest

from fastn_p2p_supervisor import fork_server_preload


def test_importing_it_elsewhere_changes_nothing() -> None:
    assert os.fork is fork_server_preload._fork


def test_preload_imports_no_network_no_cryptography_and_starts_no_thread() -> None:
    code = """
import contextlib, importlib, json, sys
from fastn_p2p_supervisor.fork_server_preload import MODULES
for name in MODULES:
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)
import pathlib
print(json.dumps([sorted(sys.modules), len(list(pathlib.Path("/proc/self/task").iterdir()))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    modules, threads = json.loads(done.stdout)
    assert {"zmq", "msgspec", "uvloop", "fastn_p2p_actors.runtime.actor"} <= set(modules)
    assert {"iroh", "typer", "rich"}.isdisjoint(modules)
    assert threads == 1


def test_a_failed_fork_fails_one_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(fork_server_preload, "_fork", refused)
    child_r, parent_w = os.pipe()
    parent_r, child_w = os.pipe()
    fds = [os.dup(parent_r)]
    with pytest.raises(ConnectionAbortedError, match="Resource temporarily unavailable"):  # ECONNABORTED
        fork_server_preload.fork_or_refuse()
    assert os.read(parent_r, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(parent_w, b"the child would read this")
    for descriptor in (child_r, child_w, *fds):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    os.close(parent_r)
    os.close(parent_w)
