"""Commands used as they were not meant to be: what they say, how they end, and that nothing is left behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.command_server import CLOSED, run_command
from tests.support.daemons import CLI, DEADLINE, eventually
from tests.support.two_daemons import TwoDaemons, final_counts, handlers_at_work, wait_idle

HELLO = """{"message": "hi"}"""


def shell(daemons: TwoDaemons, script: str) -> subprocess.CompletedProcess[str]:
    """In bash, with ``$BOB`` and ``$ALICE``."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**daemons.one.env, "PATH": path, "BOB": daemons.bob, "ALICE": daemons.alice}
    return subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.PIPE
    )


def test_standard_output_is_closed(daemons: TwoDaemons) -> None:
    done = shell(daemons, "fastn-p2p status >&-")
    assert (done.returncode, done.stderr) == (ExitCode.STORAGE, "fastn-p2p: standard output is closed\n")


def test_a_reader_of_standard_output_that_is_gone(daemons: TwoDaemons) -> None:
    done = shell(daemons, "set -o pipefail; fastn-p2p status | true")
    assert done.returncode in (ExitCode.OK, ExitCode.PIPE)  # it may have been faster
    assert done.stderr == ""


def test_messages_that_cannot_be_written_do_not_stop_a_command(daemons: TwoDaemons) -> None:
    """The output appears nowhere else, and the command still takes effect."""
    done = shell(daemons, "fastn-p2p identity-offline nobody 2>&-")
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    done = shell(daemons, "fastn-p2p create-identity quiet 2>/dev/full && fastn-p2p delete-identity quiet --yes 2>&-")
    assert done.returncode == 0
    assert len(done.stdout.strip()) == 52


@pytest.mark.parametrize(
    ("command", "input", "words"),
    [
        ("call $BOB Echo", "", "standard input is empty"),
        ("call $BOB Echo", "{message: hi}", "standard input is not JSON"),
        ("call $BOB Echo --data @/nowhere", None, "cannot read '/nowhere': No such file or directory"),
        ("call $BOB Echo --data 99999999999999999999", None, "64 bits"),
        ("call", None, "Missing argument"),
        ("call $BOB Echo --timeout never --data 1", None, "--timeout"),
        ("frobnicate", None, "No such command 'frobnicate'"),
        ("status --frobnicate", None, "No such option"),
        ("add-protocol alice", None, "Missing option '--protocol'"),
        ("add-protocol alice --protocol Echo --config '{'", None, "not JSON"),
        ("add-protocol alice --protocol Work --workers nats://a --program", None, "--program exclude each other"),
        ("add-protocol alice --protocol Work --workers nats://a --config 1", None, "--config exclude each other"),
        ("add-protocol alice --protocol Work --workers a:4222", None, "Write nats://a:4222"),
        ("add-protocol alice --protocol Work --workers nats://u:p@a", None, "write it into a file"),
        ("add-protocol alice --protocol Work --workers nats://a --workers-ca /none", None, "no such file"),
        ("add-protocol alice --protocol Work --workers-ca a", None, "goes with --workers URL"),
        ("add-protocol alice --protocol Work --workers nats://a --workers-address b", None, "'b' is no HOST:PORT"),
        ("delete-identity alice", None, "--yes"),
    ],
)
def test_it_says_what_is_wrong_with_the_command_line(
    daemons: TwoDaemons, command: str, input: str | None, words: str
) -> None:
    assert_misuse(daemons.one.cli(*shlex.split(command.replace("$BOB", daemons.bob)), input=input), words)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("fastn-p2p call $BOB Echo <&-", "no request. Pipe JSON in"),
        ("head -c 1000 /dev/urandom | fastn-p2p call $BOB Echo", "standard input is not JSON"),
        ("fastn-p2p daemon --network nowhere", "--network"),
    ],
)
def test_it_says_what_is_wrong_with_the_script(daemons: TwoDaemons, script: str, words: str) -> None:
    assert_misuse(shell(daemons, script), words)


def assert_misuse(done: subprocess.CompletedProcess[str], words: str) -> None:
    """The command has done nothing, and said why."""
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_is_interrupted_is_cancelled(daemons: TwoDaemons, number: signal.Signals) -> None:
    """At the other daemon too, and the command ends at once, without a word."""
    before = final_counts(daemons.two, "bob")["cancelled"]
    process = subprocess.Popen(
        [*CLI, "call", daemons.bob, "Trial", "--timeout", "60", "--data", '{"do": "wait"}'],
        env=daemons.one.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        eventually(lambda: handlers_at_work(daemons.two, "bob"), "the handler runs")
        process.send_signal(number)
        output = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert output == (b"", b"")
    assert process.returncode == (ExitCode.INTERRUPTED if number == signal.SIGINT else -signal.SIGTERM)
    assert final_counts(daemons.two, "bob")["cancelled"] == before + 1
    wait_idle(daemons.one)


def test_names_from_the_other_side_cannot_write_to_the_terminal(daemons: TwoDaemons) -> None:
    """Escape sequences in an error's words are shown, not obeyed."""
    done = daemons.one.cli("call", daemons.bob, "Trial", input='{"do": "refuse", "value": "\\u001b[2J"}')
    assert done.returncode == ExitCode.APPLICATION
    assert "\x1b" not in done.stderr
    done = daemons.one.cli("call", "no\x1b[2Jbody", "Echo", input=HELLO)
    assert done.returncode == ExitCode.PEER
    assert "\x1b" not in done.stderr
    assert "\\x1b" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "call --help",
        "files --help",
        "demo",
        "protocols",
        "protocols --json",
        "status",
        "status --json",
        "status --watch",
        "status --watch --json",
        "list-identities",
        "list-identities --json",
        "ticket alice",
        'call $BOB Echo --data \'{"message": "hi"}\'',
        'stream $BOB Trial --data \'{"do": "who"}\'',
        "new-protocol Full --dir $DIRECTORY",
    ],
)
@pytest.mark.parametrize(
    ("output", "words"), [("/dev/full", "No space left on device"), (CLOSED, "standard output is closed")]
)
def test_output_that_cannot_be_written_is_an_error(
    daemons: TwoDaemons, tmp_path: Path, command: str, output: str, words: str
) -> None:
    if command == "demo":
        done = shell(daemons, f"fastn-p2p demo >{output}")
    else:
        arguments = command.replace("$BOB", daemons.bob).replace("$DIRECTORY", str(tmp_path / "full"))
        done = run_command(shlex.split(arguments), daemons.one.env, input=None, timeout=DEADLINE, stdout=output)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


def test_help_into_a_pipe_without_a_reader(daemons: TwoDaemons) -> None:
    done = shell(daemons, "fastn-p2p --help | true; exit ${PIPESTATUS[0]}")
    assert done.returncode in (ExitCode.OK, ExitCode.PIPE), done.stderr


def test_everything_is_as_it_was(daemons: TwoDaemons) -> None:
    status = daemons.one.status()
    assert [identity.name for identity in status.identities] == ["alice"]
    assert all(process.restarts == 0 for process in status.processes)
