"""A signal that arrives while a command is being imported has the effect that it has on the command that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SITE: Final = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SIGNAL_AT"] and os.environ.pop("SIGNAL", ""):
            os.kill(os.getpid(), {number})
        return None

sys.meta_path.insert(0, Finder())
"""
HELD: Final = "fastn_p2p.cli"
"""Imported before the command is known."""
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.mark.parametrize(
    ("command", "number", "module", "code"),
    [
        ("open bob", TERM, HELD, 0),
        ("open bob", TERM, "fastn_p2p.protocols.web.loopback_server", 0),
        ("open bob", INT, HELD, 130),
        ("forward bob --listen 127.0.0.1:0", TERM, HELD, 0),
        ("forward bob --listen 127.0.0.1:0", TERM, "fastn_p2p.protocols.tunnel.forwarder", 0),
        ("relay --listen 127.0.0.1:0", TERM, "fastn_p2p.relay.relay_server", 0),
        ("relay --listen 127.0.0.1:0", INT, HELD, 0),
        ("daemon", TERM, HELD, 0),
        ("daemon", HUP, "fastn_p2p.console.daemon_settings", 0),
        ("daemon", INT, "fastn_p2p_supervisor.daemon", 0),
        ("pair", TERM, HELD, 130),
        ("demo", TERM, HELD, 130),
        ("status --watch", TERM, HELD, -TERM),
        ("status --watch", INT, HELD, 130),
        ("--help", HUP, HELD, -HUP),
    ],
)
def test_a_signal_during_the_start(tmp_path: Path, command: str, number: int, module: str, code: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE.format(number=int(number)))
    env = {**os.environ, "FASTN_HOME": str(tmp_path / "home"), "FASTN_NETWORK": "local"}
    env |= {"PYTHONPATH": str(tmp_path), "SIGNAL_AT": module, "SIGNAL": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "fastn_p2p", *command.split()],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """nohup has started it."""
    (tmp_path / "sitecustomize.py").write_text(SITE.format(number=int(HUP)))
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SIGNAL_AT": HELD, "SIGNAL": "1"}
    command = ["nohup", sys.executable, "-m", "fastn_p2p", "--version"]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("fastn-p2p ")
