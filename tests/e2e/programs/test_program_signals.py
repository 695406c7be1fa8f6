"""Programs that serve with ``run``: Ctrl-C and SIGTERM finish what is in flight, and end them without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client.ipc.messages import AddProtocol
from tests.support.daemons import eventually, is_alive
from tests.support.processes import child, send_signal, signal_if_alive
from tests.support.two_daemons import TwoDaemons, binding_of

PROGRAMS = {
    "async": "from fastn_p2p_client import listen; server = listen('bob')",
    "async all": "from fastn_p2p_client import serve_all; server = serve_all()",
    "blocking": "from fastn_p2p_client.sync import listen; server = listen('bob')",
    "blocking all": "from fastn_p2p_client.sync import serve_all; server = serve_all()",
}
HANDLER = """
import asyncio, pathlib, sys, threading

@server.handle_requests(sys.argv[1])
async def slow(path: str) -> str:
    pathlib.Path(path + " begun").touch()
    while not pathlib.Path(path).exists():
        await asyncio.sleep(0.005)
    return "finished"

server.run()
print("it goes on after run")
"""


@pytest.fixture(scope="module", autouse=True)
def declared(daemons: TwoDaemons) -> None:
    """bob has a binding for the programs that serve all."""
    with daemons.two.client() as client:
        client.control(AddProtocol("bob", "All", "default", ("everyone",), program=True))


@contextmanager
def program(daemons: TwoDaemons, kind: str, source: str = HANDLER) -> Iterator[subprocess.Popen[str]]:
    name = "All" if kind.endswith("all") else "One"
    command = [sys.executable, "-c", PROGRAMS[kind] + source, name]
    with child(
        subprocess.Popen(command, env=daemons.two.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as running:
        try:
            eventually(lambda: running.poll() is not None or _calls(daemons, name) == [0], "it serves")
            yield running
        finally:
            running.kill()


def _calls(daemons: TwoDaemons, protocol: str) -> list[int]:
    """The requests in flight of each binding of bob's that a program serves."""
    bindings = [each for identity in daemons.two.status().identities for each in identity.bindings]
    return [each.in_flight for each in bindings if each.protocol == protocol and each.programs]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_signal_ends_a_program_after_its_calls(
    daemons: TwoDaemons, kind: str, number: signal.Signals, tmp_path: Path
) -> None:
    replies: list[Any] = []
    name = "All" if kind.endswith("all") else "One"

    def call() -> None:
        with daemons.two.client() as client:
            replies.append(client.call("bob", daemons.bob, name, request=str(tmp_path / "go on"), timeout=60))

    with program(daemons, kind) as running:
        caller = threading.Thread(target=call)
        caller.start()
        eventually((tmp_path / "go on begun").exists, "it is at work")
        running.send_signal(number)
        eventually(lambda: not _calls(daemons, name), "it takes no more")
        assert is_alive(running.pid)
        (tmp_path / "go on").touch()
        caller.join(60)
        assert running.communicate(timeout=60) == ("it goes on after run\n", "")
        assert running.returncode == 0
    assert replies == ["finished"]


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_second_signal_does_not_wait(daemons: TwoDaemons, kind: str, tmp_path: Path) -> None:
    name = "All" if kind.endswith("all") else "One"
    failures: list[BaseException] = []

    def call() -> None:
        try:
            with daemons.two.client() as client:
                client.call("bob", daemons.bob, name, request=str(tmp_path / "never"), timeout=60)
        except Exception as error:
            failures.append(error)

    with program(daemons, kind) as running:
        caller = threading.Thread(target=call)
        caller.start()
        eventually((tmp_path / "never begun").exists, "it is at work")
        running.send_signal(signal.SIGINT)
        eventually(lambda: not _calls(daemons, name), "it takes no more")
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
        assert "Traceback" not in errors
        assert output == "it goes on after run\n"
        assert running.returncode == 0
        caller.join(60)
    assert failures


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_signal_ends_a_program_whose_daemon_does_not_answer(daemons: TwoDaemons, kind: str) -> None:
    gateway = daemons.two.pid("gateway")
    source = HANDLER.replace("server.run()", "print('now', flush=True); server.run()")
    with child(
        subprocess.Popen(
            [sys.executable, "-c", PROGRAMS[kind] + source, "All" if kind.endswith("all") else "One"],
            env=daemons.two.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as running:
        try:
            send_signal(gateway, signal.SIGSTOP)
            assert running.stdout is not None
            assert running.stdout.readline() == "now\n"
            running.send_signal(signal.SIGTERM)
            output, errors = running.communicate(timeout=60)
            assert "Traceback" not in errors
            assert (running.returncode, output) in ((0, "it goes on after run\n"), (-signal.SIGTERM, ""))
        finally:
            signal_if_alive(gateway, signal.SIGCONT)
            running.kill()


def test_run_inside_an_event_loop_is_refused(daemons: TwoDaemons) -> None:
    source = """
import asyncio
from fastn_p2p_client import UsedElsewhere, listen
server = listen("bob")
@server.handle_requests("Inside")
async def handle(request: None) -> None: ...
async def main():
    try:
        server.run()
    except UsedElsewhere as error:
        assert "await server.serve()" in str(error)
    else:
        raise AssertionError("it was not refused")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_why_it_cannot_be_served_is_raised(daemons: TwoDaemons) -> None:
    for kind in ("async", "blocking"):
        source = PROGRAMS[kind].replace("'bob'", "'nobody'") + HANDLER
        done = subprocess.run(
            [sys.executable, "-c", source, "One"], env=daemons.two.env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 1
        assert "IdentityNotFound" in done.stderr
    assert binding_of(daemons.two, "bob", "Echo")
