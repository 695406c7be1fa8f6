"""The examples in one file each, run as their docstrings say."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastn_p2p_client import ApplicationError, BadRequest, Client, DaemonNotRunning, sync
from fastn_p2p_client.chat import ChatClient
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.processes import child, send_signal
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of

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
        assert done.stdout == "You said: hello\n"
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

    def served() -> list[subprocess.CompletedProcess[str]]:
        done = run(daemons.one, *command)
        return [] if done.returncode else [done]

    return eventually(served, "it is served")[0]


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
        ("chat_bot.py", "alice"),
        ("sensor_fleet.py", "sense", "bob", "attic"),
        ("sensor_fleet.py", "collect", "alice"),
        ("file_drop.py", "alice"),
        ("worker_pool.py", "work", "alice"),
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


def test_the_chat_bot_answers_each_message_once(daemons: TwoDaemons) -> None:
    know_each_other(daemons)
    add_binding(daemons.one, "alice", "Chat")
    add_binding(daemons.two, "bob", "Chat")
    say(daemons, "2 3 4")
    for _ in range(2):  # the second bot finds nothing to answer
        with serving(daemons.two, "chat_bot.py", "bob"):
            eventually(lambda: "The sum is 9." in heard(daemons), "the bot has answered")
    with serving(daemons.two, "chat_bot.py", "bob"):
        say(daemons, "hello")
        eventually(lambda: len(heard(daemons)) == 2, "the bot has answered")
    assert heard(daemons) == ["The sum is 9.", "Send me numbers, and I add them."]


def say(daemons: TwoDaemons, text: str) -> None:
    async def send() -> None:
        async with Client(daemons.one.home) as client:
            await (await ChatClient(client, "alice").with_peer("bob")).send(text)

    asyncio.run(send())


def heard(daemons: TwoDaemons) -> list[str]:
    """Return what bob has written to alice."""

    async def read() -> list[str]:
        async with Client(daemons.one.home) as client:
            lines = await (await ChatClient(client, "alice").with_peer("bob")).history()
            return [line.text for line in lines if not line.mine]

    return asyncio.run(read())


def know_each_other(daemons: TwoDaemons) -> None:
    with daemons.one.client() as one, daemons.two.client() as two:
        one.peers.add(daemons.bob, "bob")
        two.peers.add(daemons.alice, "alice")


def test_sensors_mail_their_readings(daemons: TwoDaemons) -> None:
    with daemons.two.client() as client:
        client.groups.create("sensors")
        for name in ("attic", "cellar"):
            client.peers.add(daemons.one.identity(name), name)
            client.groups.add("sensors", name)
            add_binding(daemons.one, name, "Mail")
        add_binding(daemons.two, "bob", "Mail", "default", "group:sensors")
    done = run(daemons.one, "sensor_fleet.py", "sense", daemons.bob, "attic", "cellar")
    assert (done.returncode, done.stderr) == (0, "")
    with serving(daemons.two, "sensor_fleet.py", "collect", "bob") as collector:
        assert collector.stdout is not None
        readings = {collector.stdout.readline().split()[0] for _ in range(2)}
        assert readings == {"attic", "cellar"}


def test_the_file_drop_takes_files_of_everybody(daemons: TwoDaemons, tmp_path: Path) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    (tmp_path / "report.txt").write_text("All is well.")
    add_binding(daemons.two, "bob", "FileTransfer", "default", "everyone", inbox=str(inbox))
    with serving(daemons.two, "file_drop.py", "bob"):
        put = [*CLI, "files", "put", daemons.bob, str(tmp_path / "report.txt"), "--as", "alice"]
        done = subprocess.run(put, env=daemons.one.env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    assert (inbox / "report.txt").read_text() == "All is well."


def test_jobs_are_not_submitted_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with ``retry`` would wait for a daemon."""
    monkeypatch.setenv("FASTN_HOME", str(tmp_path))
    monkeypatch.setattr(Client, "call", lambda *_, **__: pytest.fail("a call was made"))
    submit = runpy.run_path(str(EXAMPLES / "worker_pool.py"))["submit"]
    with pytest.raises(DaemonNotRunning):
        asyncio.run(submit("bob", "2"))


def test_a_killed_worker_loses_no_job(daemons: TwoDaemons) -> None:
    with (
        serving(daemons.two, "worker_pool.py", "work", "bob") as first,
        serving(daemons.two, "worker_pool.py", "work", "bob"),
    ):
        eventually(lambda: binding_of(daemons.two, "bob", "Square").programs == 2, "both serve")
        send_signal(first.pid, signal.SIGSTOP)  # its jobs stay in progress until it is killed
        submit = [sys.executable, str(EXAMPLES / "worker_pool.py"), "submit", daemons.bob, "200", "alice"]
        with child(subprocess.Popen(submit, env=daemons.one.env, stdout=subprocess.PIPE, text=True)) as submitting:
            eventually(lambda: binding_of(daemons.two, "bob", "Square").in_flight, "they work")
            first.kill()
            output = submitting.communicate(timeout=60)[0]
        assert output.startswith(f"{sum(n * n for n in range(200))} {{")
        assert submitting.returncode == 0
