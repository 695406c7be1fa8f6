"""Commands as processes: without a daemon, with a closed pipe, with signals."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "fastn_p2p"]

NEEDS_A_DAEMON = [
    "create-identity alice",
    "delete-identity alice --yes",
    "list-identities",
    "list-identities --json",
    """add-protocol alice --protocol Echo --config '{"max_length": 1000}'""",
    "remove-protocol alice --protocol Echo --alias backup",
    "identity-online alice",
    "identity-offline alice",
    "status",
    "status --json",
    "status --watch",
    "call bob Echo --data '{}'",
    "stream bob Trial",
    "forward bob web --listen 127.0.0.1:0",
    "expose 8000",
    "open bob",
    "ticket",
    "ticket alice",
    "peer add fastn1abc --name bob",
    "peer list",
    "peer remove bob",
]


def run(home: Path, command: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTN_HOME": str(home)}
    return subprocess.run(
        [*PROGRAM, *shlex.split(command)],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", NEEDS_A_DAEMON)
def test_without_a_daemon_each_command_says_how_to_start_one(tmp_path: Path, command: str) -> None:
    done = run(tmp_path / "home", command)
    message = done.stdout if "--json" in command else done.stderr
    assert message == done.stdout + done.stderr
    assert "fastn-p2p daemon" in message
    assert str(tmp_path / "home") in message
    assert len(message.splitlines()) == 1
    assert done.returncode == 3
    assert not (tmp_path / "home").exists(), "asking must create nothing"


def test_a_daemon_that_was_killed_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    (tmp_path / "run" / "processes.json").write_text(f'{{"supervisor": {os.getpid()}, "processes": []}}')
    done = run(tmp_path, "status")
    assert done.returncode == 3
    assert "no daemon is running" in done.stderr


def test_an_argument_that_is_not_utf8(tmp_path: Path) -> None:
    done = subprocess.run(
        [*map(os.fsencode, PROGRAM), b"call", b"bob", b"Echo", b"--data", b"\xff"],
        env={**os.environ, "FASTN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


PUT_FOREVER = "from fastn_p2p.console.output import write_result\nwhile True: write_result('line')"


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    writer = subprocess.Popen([sys.executable, "-c", PUT_FOREVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"line\n"
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(60) == 141


def test_help_is_read_only_in_part() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(PROGRAM)} --help | true"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stderr == ""
