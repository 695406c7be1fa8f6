"""The Python environment that the daemon runs in, and the command that installs a package into it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from fastn_p2p_client.home import Home

from ..console.process_snapshot import read_process_file


def daemon_python(home: Home) -> str:
    """Return the interpreter of the daemon for ``home``, or of this process if no daemon runs."""
    snapshot = read_process_file(home)
    return snapshot.python if snapshot is not None and snapshot.python else sys.executable


def install_command(python: str, package: Path) -> str:
    """Return the shell command that installs a package for an interpreter, in editable mode."""
    words = ["-m", "pip", "install", "-e", str(package)]
    if _has_pip(python):
        return shlex.join([python, *words])
    if shutil.which("uv"):
        return shlex.join(["uv", "pip", "install", "--python", python, "-e", str(package)])
    return f"{shlex.join([python, '-m', 'ensurepip'])} && {shlex.join([python, *words])}"


def _has_pip(python: str) -> bool:
    """Return whether the interpreter has pip. Environments that ``uv`` creates have none."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
    try:
        return subprocess.run([python, "-c", look], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return True
