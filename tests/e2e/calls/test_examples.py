"""The examples in one file each, run as their docstrings say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastn_p2p_client import ApplicationError, BadRequest, sync
from tests.support.daemons import Daemon
from tests.support.processes import child
from tests.support.two_daemons import TwoDaemons

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def run(daemon: Daemon, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], env=daemon.env, capture_output=True, text=True, timeout=100
    )


@contextmanager
def serving(daemon: Daemon, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that says that it is serving."""
    with child(
        subprocess.Popen(
            [sys.executable, EXAMPLES / name, *arguments],
            env=daemon.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline().startswith("serving ")
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_request_response(daemons: TwoDaemons, end: signal.Signals) -> None:
    with serving(daemons.two, "request_response.py", "server", "bob") as server:
        done = until_served(daemons, "request_response.py", "client", daemons.bob)
        assert (done.returncode, done.stdout) == (0, "You said: hello\n"), done.stderr
        done = run(daemons.one, "request_response.py", "client", daemons.bob, "", "--as", "alice")
        assert (done.returncode, done.stderr) == (1, "application error: Empty: the message is empty (0 characters)\n")
        server.send_signal(end)
        output, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, "")
        assert output == f"{daemons.alice}: hello\n{daemons.alice}: \n"
    done = run(daemons.one, "request_response.py", "client", daemons.bob)
    assert done.returncode == 1
    assert "does not serve RequestResponse" in done.stderr or "RequestResponse" in done.stderr
    assert "Traceback" not in done.stderr


def until_served(daemons: TwoDaemons, *command: str) -> subprocess.CompletedProcess[str]:
    """The first call that finds the program: it says that it serves a moment before the network knows."""
    done = run(daemons.one, *command)
    for _ in range(20):
        if done.returncode == 0:
            break
        done = run(daemons.one, *command)
    return done


def test_pyzmq_client_calls(daemons: TwoDaemons) -> None:
    name = "pyzmq_client.py"
    done = run(daemons.one, name, "call", "alice", daemons.bob, "Echo", '{"message": "hi"}')
    assert (done.returncode, done.stdout) == (0, '{"echoed":"Echo: hi"}\n'), done.stderr
    done = run(daemons.one, name, "call", "", daemons.bob, "Echo", '{"message": ""}')
    assert done.returncode == 1
    assert done.stderr.startswith("MessageEmpty: ")
    done = run(daemons.one, name, "call", "alice", daemons.bob, "Nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("protocol-not-found: ")
    assert run(daemons.one, name, "call").returncode == 2


def test_pyzmq_client_serves(daemons: TwoDaemons) -> None:
    with (
        serving(daemons.two, "pyzmq_client.py", "serve", "bob", "Shout", "3") as server,
        daemons.one.client() as client,
    ):
        assert client.call("alice", daemons.bob, "Shout", request="hi") == "HI!"
        with pytest.raises(BadRequest):
            client.call("alice", daemons.bob, "Shout", request=5)
        with pytest.raises(ApplicationError) as refused:
            client.call("alice", daemons.bob, "Shout", request="")
        assert (refused.value.kind, refused.value.payload) == ("Empty", {"length": 0})
        output, errors = server.communicate(timeout=60)
        assert (server.returncode, output, errors) == (0, "", "")


def test_pyzmq_client_says_that_the_daemon_has_ended(daemons: TwoDaemons) -> None:
    with serving(daemons.two, "pyzmq_client.py", "serve", "bob", "Shout") as server:
        pid = daemons.two.kill_actor("network")
        errors = server.communicate(timeout=60)[1]
        assert server.returncode == 1
        assert "has ended" in errors
        daemons.two.wait_actor("network", not_pid=pid)


def test_the_examples_need_a_daemon(tmp_path: Path) -> None:
    env = {**os.environ, "FASTN_HOME": str(tmp_path)}
    for name, *arguments in (
        ("pyzmq_client.py", "call", "alice", "bob", "Echo"),
        ("pyzmq_client.py", "serve", "alice", "Shout"),
        ("request_response.py", "client", "bob"),
        ("request_response.py", "server", "alice"),
    ):
        done = subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments], env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 1
        assert "fastn-p2p daemon" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_pyzmq_example_imports_nothing_of_ours() -> None:
    source = (EXAMPLES / "pyzmq_client.py").read_text()
    imported = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    third_party = imported - sys.stdlib_module_names
    assert third_party == {"msgspec", "zmq"}
    assert sync.__name__ not in source
