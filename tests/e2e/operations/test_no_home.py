"""Homes that are missing, or that no text can name, and locales without UTF-8: served, or refused with a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.daemons import CLI, Daemon

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PROGRAM = """
from fastn_p2p_client import sync
from fastn_p2p_client.ipc.messages import ListIdentities
with sync.Client(program="tests") as client:
    peer = client.control(ListIdentities()).identities[0].id52
    print(client.call("alice", peer, "Echo", request={"message": "x"}))
"""


def test_a_home_that_the_locale_cannot_say(make_daemon: Callable[..., Daemon]) -> None:
    """The daemon and its commands, and a program of the user, which has the file system's encoding of its locale."""
    daemon = make_daemon("h\u00f6me", **PLAIN).start()
    for command in (
        ["create-identity", "alice"],
        ["identity-online", "alice"],
        ["add-protocol", "alice", "--protocol", "Echo"],
        ["status"],
    ):
        done = daemon.cli(*command)
        assert done.returncode == ExitCode.OK, done.stderr
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=daemon.env, capture_output=True, text=True, timeout=100, check=False
    )
    assert "Echo: x" in program.stdout, program.stderr


@pytest.mark.parametrize("locale", [{}, PLAIN], ids=["UTF-8", "C"])
def test_a_home_whose_path_is_not_utf8_is_refused(tmp_path: Path, locale: dict[str, str]) -> None:
    env = {**os.environb, **{os.fsencode(key): os.fsencode(value) for key, value in locale.items()}}
    env[b"FASTN_HOME"] = os.fsencode(tmp_path) + b"/\xff\xfe"
    for command in ("status", "daemon"):
        done = subprocess.run([*CLI, command], env=env, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == ExitCode.STORAGE
        assert "its path is not UTF-8. Use another --home or FASTN_HOME" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without an account")
@pytest.mark.parametrize("command", ["status", "daemon"])
def test_no_home_and_no_account(command: str) -> None:
    code = f"""
import os, sys
import fastn_p2p.cli.commands.{command}, fastn_p2p.cli.status.collect, fastn_p2p.cli.typer_commands
import fastn_p2p_supervisor.daemon, fastn_p2p_supervisor.actor_specs, fastn_p2p.console.daemon_settings
import fastn_p2p_actors.daemon_settings.resolution, tomllib
from fastn_p2p.cli import main
os.environ.pop("HOME", None), os.environ.pop("FASTN_HOME", None)
os.setgroups([]), os.setgid(4000001), os.setuid(4000001)
sys.exit(main(["{command}"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert "HOME is not set and uid 4000001 has no account. Set FASTN_HOME, or use --home" in done.stderr
