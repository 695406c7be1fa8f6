"""The harness of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.command_server import run_command
from tests.support.daemon_server import is_forkable
from tests.support.daemons import Daemon, eventually, is_alive
from tests.support.json_lines import check_json_lines

START = """
import signal, subprocess, sys
numbers = [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
for number in numbers:
    signal.signal(number, signal.SIG_IGN)
import tests.conftest
started = "import signal; print([signal.getsignal(each).name for each in %r if each != 2], signal.getsignal(2))"
subprocess.run([sys.executable, "-c", started % [int(each) for each in numbers]], check=True)
"""


def test_programs_hear_signals_although_a_shell_has_started_the_tests_in_the_background() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['SIG_DFL', 'SIG_DFL'] <built-in function default_int_handler>"), done.stdout


HANGS = """
import asyncio, signal, subprocess, sys, time
import pytest

@pytest.fixture
def held():
    yield
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]):  # it waits for its child
        time.sleep(600)

def test_a_fixture_after_a_failure(held):
    assert False

async def test_a_task():
    await asyncio.Event().wait()

def test_that_does_not_hang():
    pass

def test_code_that_no_signal_reaches():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(600)
"""
LOOP = """
import uvloop
def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}
"""


def test_each_hang_ends_with_a_report(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(LOOP)
    (tmp_path / "test_hangs.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "tests.support.time_limit"]
    options = ["--timeout=1", "-o", "asyncio_mode=auto", "--rootdir", str(tmp_path), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "FASTN_TEST_TIMEOUT_AGAIN": "1.5"}
    done = subprocess.run([*command, *options], cwd=root, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stdout
    assert "test_a_fixture_after_a_failure FAILED" in done.stdout
    assert "test_a_fixture_after_a_failure ERROR" in done.stdout
    assert "test_a_task FAILED" in done.stdout
    assert "test_that_does_not_hang PASSED" in done.stdout
    assert "in test_code_that_no_signal_reaches" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["call", "PEER", "Echo", "--data", "{"],
        ["call", "caf\udce9", "Echo"],
        ["protocols"],
        ["no-command"],
    ],
    ids=" ".join,
)
def test_a_forked_command_does_what_one_does_that_the_interpreter_starts(arguments: list[str], tmp_path: Path) -> None:
    env = {**os.environ, "FASTN_HOME": str(tmp_path / "caf\udce9")}
    command = [sys.executable, "-m", "fastn_p2p", *arguments]
    started = subprocess.run(command, env=env, input="{}", capture_output=True, text=True, timeout=60, check=False)
    forked = run_command(arguments, env, input="{}", timeout=60)
    assert (forked.args, forked.returncode) == (started.args, started.returncode)
    assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_a_forked_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a process that opens it waits for a writer
    arguments = ["call", "bob", "Echo", "--data", f"@{tmp_path}/pipe"]
    env = {**os.environ, "FASTN_HOME": str(tmp_path)}
    run_command(["--version"], env, input=None, timeout=60)  # the server of commands runs, and what other tests share
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    with pytest.raises(subprocess.TimeoutExpired):
        run_command(arguments, env, input=None, timeout=0.3)
    forked = {each.pid for each in psutil.Process().children(recursive=True)} - before
    eventually(lambda: not any(map(is_alive, forked)), "nothing of the command is left")


def test_a_forked_daemon_is_what_one_is_that_the_interpreter_starts(tmp_path: Path) -> None:
    assert is_forkable(Daemon(tmp_path, tmp_path).env)
    assert not is_forkable(Daemon(tmp_path, tmp_path, MALLOC_ARENA_MAX="3").env)
    seen = []
    for forked in (True, False):
        daemon = Daemon(tmp_path / str(forked), tmp_path / "hosts")
        daemon.forked = forked
        try:
            daemon.start()
            assert daemon.process is not None
            seen.append(look_at(daemon.process.pid))
        finally:
            assert daemon.stop() == 0
            daemon.clean_up()
    assert seen[0] == seen[1]


def look_at(pid: int) -> object:
    """Return what a daemon's supervisor has of the kernel, as every user may see it, and its descendants."""
    state = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    names = ("Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Seccomp", "Threads")
    descendants = sorted(each.name() for each in psutil.Process(pid).children(recursive=True))
    limits = Path(f"/proc/{pid}/limits").read_text()
    return [state[name].strip() for name in names], limits, os.getsid(pid) == pid, descendants


def test_json_of_a_command_is_checked_against_its_types(tmp_path: Path) -> None:
    error = '{"error": {"code": "usage-error", "message": "wrong", "exit": 2, "fields": {}}}'
    check_json_lines(
        ["--home", str(tmp_path), "peer", "remove", "bob", "--json"], f'{{"name": "b", "groups": []}}\n{error}'
    )
    for line in ('{"name": "b"}', '{"name": "b", "groups": [], "more": 1}', '{"name": "b", "groups": "c"}', "[]"):
        with pytest.raises(AssertionError, match="peer remove"):
            check_json_lines(["peer", "remove", "bob", "--json"], line)
