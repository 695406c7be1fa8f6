"""``fastn-p2p stream`` between shells and a handler: every kind of input and output, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.daemons import CLI
from tests.support.two_daemons import TwoDaemons, final_counts, wait_idle

SIZE = 20_000_000


def shell(daemons: TwoDaemons, script: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """In bash, with ``$BOB``, and ``trial``: a stream whose handler is told what to do."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**daemons.one.env, "PATH": path, "BOB": daemons.bob}
    trial = 'trial() { fastn-p2p stream $BOB Trial --data "{\\"do\\": \\"$1\\", \\"size\\": ${2:-0}}"; }\n'
    return subprocess.run(
        ["bash", "-c", trial + script],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )


@contextmanager
def streaming(daemons: TwoDaemons, order: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command with pipes at all ends."""
    process = subprocess.Popen(
        [*CLI, "stream", daemons.bob, "Trial", "--data", order],
        env=daemons.one.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for each in (process.stdin, process.stdout, process.stderr):
            assert each is not None
            each.close()


def pipe(end: IO[bytes] | None) -> int:
    assert end is not None
    return end.fileno()


# ── inputs and outputs ───────────────────────────────────────────────────────────────────────────


def test_binary_data_goes_both_ways_at_once(daemons: TwoDaemons, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(SIZE))
    for script in ("cat data | trial echo | cmp - data", "trial echo <data >out && cmp out data"):
        done = shell(daemons, f"set -o pipefail; {script}", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_output_goes_on_after_the_end_of_the_input(daemons: TwoDaemons) -> None:
    done = shell(daemons, f"head -c {SIZE} /dev/zero | trial count")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{SIZE} ".encode())


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-", "< <(true)"])
def test_no_input(daemons: TwoDaemons, stdin: str) -> None:
    done = shell(daemons, f"trial count {stdin}; trial send 5 {stdin}")
    assert done.returncode == 0
    assert done.stdout.startswith(b"0 ")
    assert done.stdout.endswith(b"\x00\x01\x02\x03\x04")


def test_an_output_that_is_appended_to(daemons: TwoDaemons, tmp_path: Path) -> None:
    done = shell(
        daemons, "echo -n head > out; (echo -n -; trial send 3) >> out; (echo -n +; trial send 3) >> out", tmp_path
    )
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"head-\x00\x01\x02+\x00\x01\x02"


@pytest.mark.parametrize(
    ("redirection", "words"),
    [(">&-", "standard output is closed"), (">/dev/full", "cannot write to standard output: No space left on device")],
)
def test_an_output_that_takes_nothing(daemons: TwoDaemons, redirection: str, words: str) -> None:
    done = shell(daemons, f"trial send 100000 {redirection}")
    assert (done.returncode, done.stderr.decode()) == (ExitCode.STORAGE, f"fastn-p2p: {words}\n")


def test_an_input_that_cannot_be_read(daemons: TwoDaemons) -> None:
    done = shell(daemons, "trial count 0>/dev/null")
    assert (done.returncode, done.stdout) == (ExitCode.STORAGE, b"")
    assert done.stderr == b"fastn-p2p: cannot read standard input: Bad file descriptor\n"


def test_the_reader_of_the_output_goes_away(daemons: TwoDaemons) -> None:
    done = shell(daemons, "trial send 100000000 | head -c 10; echo ${PIPESTATUS[0]}")
    assert done.stdout == bytes(range(10)) + f"{ExitCode.PIPE}\n".encode()
    assert done.stderr == b""
    wait_idle(daemons.two)


def test_lines_are_answered_at_once(daemons: TwoDaemons) -> None:
    with streaming(daemons, '{"do": "echo"}') as process:
        for number in range(50):
            line = f"line {number}\n".encode()
            os.write(pipe(process.stdin), line)
            assert os.read(pipe(process.stdout), 100) == line
        assert process.stdin is not None
        process.stdin.close()
        assert os.read(pipe(process.stdout), 1) == b""
        assert process.wait(60) == 0


def test_the_other_side_is_done_before_the_input_is(daemons: TwoDaemons) -> None:
    """The command ends at once, because its input is not read any more."""
    with streaming(daemons, '{"do": "who"}') as process:
        assert process.stdout is not None
        assert process.stdout.read().startswith(daemons.alice.encode())
        assert process.wait(60) == 0


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("trial refuse", ExitCode.APPLICATION, 'application error: Refused: as ordered\n{"size":0}'),
        ("trial raise", ExitCode.HANDLER, "the handler of Trial"),
        ("echo | trial fail", ExitCode.RESET, "the peer ended the session early"),
        ("echo | trial reset", ExitCode.RESET, "(code 0)"),
        ("echo | trial exit", ExitCode.LOST, "ended with"),
        ("trial nonsense", ExitCode.USAGE, "the request does not fit Trial"),
        ("fastn-p2p stream $BOB Nope", ExitCode.NOT_FOUND, "does not offer Nope"),
        ("fastn-p2p stream $BOB Trial nope", ExitCode.NOT_FOUND, "no instance 'nope'"),
        ("fastn-p2p stream nobody Trial", ExitCode.PEER, "nothing is known about nobody"),
        ("fastn-p2p stream $BOB Echo", ExitCode.USAGE, "the request does not fit Echo"),
        ("fastn-p2p stream $BOB Trial --data 99999999999999999999", ExitCode.USAGE, "64 bits"),
    ],
)
def test_it_says_what_went_wrong(daemons: TwoDaemons, script: str, code: ExitCode, words: str) -> None:
    before = daemons.two.pid("identity-bob")
    done = shell(daemons, script)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    if script.endswith("exit"):
        daemons.two.wait_actor("identity-bob", not_pid=before)


def test_a_daemon_s_process_is_killed(daemons: TwoDaemons) -> None:
    with streaming(daemons, '{"do": "echo"}') as process:
        os.write(pipe(process.stdin), b"x")
        assert os.read(pipe(process.stdout), 1) == b"x"
        killed = daemons.one.kill_actor("network")
        assert process.stderr is not None
        assert process.wait(60) == ExitCode.LOST
        assert b"ended with" in process.stderr.read()
    daemons.one.wait_actor("network", not_pid=killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_interrupted(daemons: TwoDaemons, number: signal.Signals) -> None:
    """The handler at the other side learns it, and the command ends at once, without a word."""
    ended = final_counts(daemons.two, "bob")["ended"]
    with streaming(daemons, '{"do": "hold"}') as process:
        assert os.read(pipe(process.stdout), 1) == b"x"
        process.send_signal(number)
        assert process.wait(60) == (ExitCode.INTERRUPTED if number == signal.SIGINT else -signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert final_counts(daemons.two, "bob")["ended"] == ended + 1
