"""Protocol code that misbehaves costs its own binding, visibly. Its identity's other bindings come back, and those of
other identities do not notice: calls to one go on all the while, and each of them succeeds."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, HandlerFailed, P2PError, ProtocolNotFound
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon, eventually, is_alive
from tests.support.faulty_protocols import FastDaemon
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding, binding_of

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}
STARTS = {
    "wait": "on_activate took longer than 5 s",
    "stubborn": "on_activate took longer than 5 s",
    "sleep": "crashed the identity's process 2 times, the last time in on_activate (not ready within 8 s)",
    "raise": "on_activate failed: RuntimeError: as ordered",
    "exit": "on_activate failed: SystemExit: 5",
    "exit really": "crashed the identity's process 3 times, the last time in on_activate (exit code 5)",
    "eat": "on_activate failed: MemoryError",
    "hoard": "crashed the identity's process 3 times, the last time in on_activate (it had no memory left)",
}
"""Behaviour of a hook at the start of the identity → state of its binding."""


class Bystander:
    """Calls between two identities that have nothing to do with all this."""

    def __init__(self, daemon: Daemon) -> None:
        self.outcomes: Counter[str] = Counter()
        self._daemon = daemon
        self._key = daemon.identity("bystander")
        daemon.identity("caller", echo=False)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def _call(self) -> None:
        with self._daemon.client() as client:
            while not self._ending.wait(0.01):
                try:
                    assert client.call("caller", self._key, "Echo", request=HI) == ECHOED
                    self.outcomes["ok"] += 1
                except P2PError as error:
                    self.outcomes[error.code] += 1

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        env = install_protocols(directory / "packages", FaultyProtocol="tests.support.faulty_protocols:FaultyProtocol")
        daemon = FastDaemon(directory / "home", directory / "hosts", **env)
        try:
            yield daemon.start()
        finally:
            daemon.clean_up()


@pytest.fixture(scope="module")
def bystander(daemon: Daemon) -> Iterator[Bystander]:
    bystander = Bystander(daemon)
    yield bystander
    bystander.end()


@pytest.fixture(scope="module")
def starts(daemon: Daemon, bystander: Bystander) -> Iterator[dict[str, Future[None]]]:
    """Identities of which one binding misbehaves when they start, being brought online; by what it does."""

    def start(way: str) -> None:
        daemon.identity(named(way), online=False)
        add_binding(daemon, named(way), "FaultyProtocol", place="on_activate", way=way)
        with daemon.client() as client:
            client.control(m.SetIdentityOnline(named(way), True), timeout=45)

    with ThreadPoolExecutor(len(STARTS)) as pool:
        yield {way: pool.submit(start, way) for way in STARTS}


@pytest.fixture(autouse=True)
def assert_others_serve(bystander: Bystander, starts: object) -> Iterator[None]:
    before = bystander.outcomes["ok"]
    yield
    eventually(lambda: bystander.outcomes["ok"] > before + 3, "calls of others go on")
    assert set(bystander.outcomes) == {"ok"}, bystander.outcomes


def named(way: str) -> str:
    return f"start-{way.replace(' ', '-')}"


def key_of(daemon: Daemon, name: str) -> str:
    return next(each.id52 for each in daemon.status().identities if each.name == name)


def call(daemon: Daemon, name: str, way: str, protocol: str = "FaultyProtocol", timeout: float = 60.0) -> object:
    with daemon.client() as client:
        request = HI if protocol == "Echo" else way
        return client.call("caller", key_of(daemon, name), protocol, request=request, timeout=timeout)


def state_of(daemon: Daemon, name: str) -> str:
    return binding_of(daemon, name, "FaultyProtocol").state


def echo_serves(daemon: Daemon, name: str) -> bool:
    """Return true if the Echo of the same identity answers."""
    with suppress(P2PError):
        return call(daemon, name, "", "Echo", timeout=20) == ECHOED
    return False


def with_faulty_protocol(daemon: Daemon, name: str, **config: str) -> str:
    daemon.identity(name)
    add_binding(daemon, name, "FaultyProtocol", **config)
    return name


def kill_with_calls(daemon: Daemon, name: str, *ways: str) -> str:
    """Calls that each end the identity's process; the state of the binding after the last one."""
    for way in ways:
        eventually(lambda: echo_serves(daemon, name), f"{name} is up")
        pid = daemon.pid(f"identity-{name}")
        with pytest.raises((ConnectionLost, HandlerFailed)):
            call(daemon, name, way)
        daemon.wait_actor(f"identity-{name}", not_pid=pid)
    eventually(lambda: echo_serves(daemon, name), f"{name} is up without it")
    with pytest.raises(ProtocolNotFound):
        call(daemon, name, "nothing")
    return state_of(daemon, name)


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────


def test_handler_that_waits_for_ever(daemon: Daemon) -> None:
    name = with_faulty_protocol(daemon, "waits")

    def is_counted(way: str, errors: int) -> bool:
        """It has not run if the call was on its way until its deadline."""
        with pytest.raises(DeadlineExceeded):
            call(daemon, name, way, timeout=0.3)
        return binding_of(daemon, name, "FaultyProtocol").errors > errors

    for way in ("wait", "stubborn"):
        before = binding_of(daemon, name, "FaultyProtocol").errors
        eventually(lambda: is_counted(way, before), f"{way} is counted")  # noqa: B023
    assert call(daemon, name, "nothing") == daemon.pid(f"identity-{name}")


def test_handler_that_raises_or_exits_politely(daemon: Daemon) -> None:
    name = with_faulty_protocol(daemon, "raises")
    for way, words in (("raise", "RuntimeError"), ("exit", "SystemExit")):
        with pytest.raises(HandlerFailed, match=words):
            call(daemon, name, way)
    assert call(daemon, name, "nothing") == daemon.pid(f"identity-{name}")
    eventually(lambda: binding_of(daemon, name, "FaultyProtocol").errors == 2, "both are counted")


def test_handler_that_never_comes_back_to_the_event_loop(daemon: Daemon) -> None:
    state = kill_with_calls(daemon, with_faulty_protocol(daemon, "spins"), "sleep", "spin")
    assert "2 times, the last time in a request (no heartbeat for 3 s)" in state


def test_handler_that_ends_the_process(daemon: Daemon) -> None:
    """The binding is excluded, which its state shows, and `start` serves it again."""
    name = with_faulty_protocol(daemon, "exits")
    state = kill_with_calls(daemon, name, *["exit really"] * 3)
    assert state.startswith("failed: ")
    assert "3 times, the last time in a request (exit code 5)" in state
    assert "FaultyProtocol (default): failed: it crashed" in " ".join(daemon.shown_status().split())
    done = daemon.cli("start", name, "FaultyProtocol")
    assert (done.returncode, done.stderr) == (0, f"Started FaultyProtocol (default) of {name}. State: serving.\n")
    assert call(daemon, name, "nothing") == daemon.pid(f"identity-{name}")


def test_a_task_that_ends_the_process(daemon: Daemon) -> None:
    """No call waits for the task, and the supervisor still knows its binding."""
    name = daemon.identity("tasks") and "tasks"
    add_binding(daemon, name, "FaultyProtocol", place="a task", way="exit")
    add_binding(daemon, name, "FaultyProtocol", "other", place="a task", way="exit really")
    eventually(
        lambda: binding_of(daemon, name, "FaultyProtocol", "other").state.startswith("failed: "), "it is left out"
    )
    assert "3 times, the last time in on_activate" in binding_of(daemon, name, "FaultyProtocol", "other").state
    eventually(lambda: echo_serves(daemon, name), "its neighbour serves")
    assert state_of(daemon, name) == "serving"  # an exit of a task that is polite ends the task


def test_handler_that_eats_memory(daemon: Daemon) -> None:
    """The process gets no more than its limit, and the memory is free afterwards."""
    name = with_faulty_protocol(daemon, "eats")
    pid = daemon.pid(f"identity-{name}")
    with pytest.raises(HandlerFailed, match="MemoryError"):
        call(daemon, name, "eat")
    assert call(daemon, name, "nothing") == pid
    assert echo_serves(daemon, name)


def test_handler_that_keeps_the_memory_that_it_ate(daemon: Daemon) -> None:
    state = kill_with_calls(daemon, with_faulty_protocol(daemon, "hoards"), *["hoard"] * 3)
    assert "3 times, the last time in a request (it had no memory left)" in state


def test_a_process_forked_by_a_handler_ends_with_its_identity(daemon: Daemon) -> None:
    """For each way to hide a child, and each end of the identity's process. No child can pass for the identity. An
    orphan ends before."""
    name = with_faulty_protocol(daemon, "forks")
    note = daemon.home.identities / name / "protocols/FaultyProtocol/default/children"

    def children() -> list[int]:
        return [int(line) for line in note.read_text().split()] if note.exists() else []

    for end in ("killed", "offline"):
        note.unlink(missing_ok=True)
        pid = daemon.pid(f"identity-{name}")
        assert call(daemon, name, "fork") == pid
        eventually(lambda: len(children()) == 3, "there are three children")
        came_back, hidden, orphan = children()
        eventually(lambda pid=came_back: not is_alive(pid), "the one that came back has ended")  # type: ignore[misc]
        eventually(lambda pid=orphan: not is_alive(pid), "the one without a parent has ended")  # type: ignore[misc]
        assert is_alive(hidden)
        assert call(daemon, name, "nothing") == pid
        if end == "killed":
            os.kill(pid, signal.SIGKILL)
            daemon.wait_actor(f"identity-{name}", not_pid=pid)
        else:
            assert daemon.cli("identity-offline", name).returncode == 0
        eventually(lambda pid=hidden: not is_alive(pid), "all of them have ended")  # type: ignore[misc]


# ── hooks ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", STARTS)
def test_hook_that_misbehaves_when_the_identity_starts(
    daemon: Daemon, starts: dict[str, Future[None]], way: str
) -> None:
    starts[way].result(50)
    state = state_of(daemon, named(way))
    assert state.startswith("failed: ")
    assert STARTS[way] in state
    assert call(daemon, named(way), "", "Echo") == ECHOED


def test_a_process_killed_by_others_is_not_blamed(daemon: Daemon) -> None:
    """The process is killed from outside while a handler runs."""
    name = with_faulty_protocol(daemon, "innocent")
    for _ in range(4):
        pid = daemon.wait_actor(f"identity-{name}")
        with ThreadPoolExecutor(1) as pool:
            called = pool.submit(call, daemon, name, "spin")
            eventually(lambda: binding_of(daemon, name, "FaultyProtocol").in_flight, "it is in flight")
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                called.result()
        daemon.wait_actor(f"identity-{name}", not_pid=pid)
        eventually(lambda: echo_serves(daemon, name), "it is up")
    assert state_of(daemon, name) == "serving"
