"""A daemon that is not there, hangs, or is there already: said as such, in the time that was given."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastn_p2p_client.errors as e
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client import Client
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon, eventually
from tests.support.processes import send_signal, signal_if_alive
from tests.support.requests import STRANGER, Call, Command, assert_same_error, ticket_of
from tests.support.two_daemons import TwoDaemons, add_binding


async def test_no_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    expected = e.DaemonNotRunning(home=str(daemon.home.path))
    for question in (Call(STRANGER), Command(["list-identities"], m.ListIdentities())):
        with daemon.client() as client, pytest.raises(e.DaemonNotRunning) as caught:
            question.blocking(client)
        assert_same_error(caught.value, expected)
        async with Client(daemon.home) as awaiting:
            with pytest.raises(e.DaemonNotRunning) as caught:
                await question.awaiting(awaiting)
        assert_same_error(caught.value, expected)
        done = daemon.cli(*question.arguments(), input=question.stdin())
        assert (done.returncode, done.stdout) == (ExitCode.DAEMON, "")
        assert done.stderr == f"fastn-p2p: {expected}\n"
        assert "fastn-p2p daemon" in done.stderr
    assert not daemon.home.path.exists()


def test_a_second_daemon_for_the_same_home(daemons: TwoDaemons) -> None:
    assert daemons.one.process is not None
    done = daemons.one.cli("daemon")
    expected = e.DaemonAlreadyRunning(home=str(daemons.one.home.path), pid=daemons.one.process.pid)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.EXISTS, "", f"fastn-p2p: {expected}\n")
    assert daemons.one.cli("list-identities").returncode == 0


@pytest.fixture
def stopped(daemons: TwoDaemons) -> Iterator[Callable[[Daemon, str], None]]:
    """Stops an actor as the kernel can (SIGSTOP), until the test ends."""
    pids: list[int] = []

    def stop(daemon: Daemon, actor: str) -> None:
        pids.append(daemon.pid(actor))
        send_signal(pids[-1], signal.SIGSTOP)

    yield stop
    for pid in pids:
        signal_if_alive(pid, signal.SIGCONT)


@pytest.mark.parametrize("actor", ["identity-bob", "network"])
def test_a_process_that_hangs_does_not_reply(
    daemons: TwoDaemons, stopped: Callable[[Daemon, str], None], actor: str
) -> None:
    """The process belongs to the peer daemon. The call ends at its deadline."""
    with daemons.one.client() as client:
        assert client.call("alice", daemons.bob, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        stopped(daemons.two, actor)
        with pytest.raises(e.DeadlineExceeded) as caught:
            client.call("alice", daemons.bob, "Echo", request={"message": "hi"}, timeout=0.5)
        assert_same_error(caught.value, e.DeadlineExceeded(seconds=0.5))


def test_a_gateway_that_hangs(daemons: TwoDaemons, stopped: Callable[[Daemon, str], None]) -> None:
    """A program that has said hello goes on calling; one that has not is told what is wrong, in its own time."""
    expected = e.DaemonBusy(actor="gateway")

    def is_told() -> bool:
        """Return false if the supervisor has replaced the gateway meanwhile, as it does on a busy machine, or if the
        machine stood still for most of the time that the command had."""
        pid = daemons.one.pid("gateway")
        with daemons.one.client() as early:
            early.start()
            stopped(daemons.one, "gateway")
            assert early.call("alice", daemons.bob, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
            with pytest.raises(e.DeadlineExceeded):
                early.control(m.ListIdentities(), timeout=0.3)
            done = daemons.one.cli("call", daemons.bob, "Echo", "--timeout", "0.8", input='{"message": "hi"}')
        is_replaced = daemons.one.pid("gateway") != pid
        signal_if_alive(pid, signal.SIGCONT)
        if is_replaced or done.returncode == ExitCode.TIMEOUT:
            return False
        assert (done.returncode, done.stdout, done.stderr) == (ExitCode.DAEMON, "", f"fastn-p2p: {expected}\n")
        return "Try again" in done.stderr

    eventually(is_told, "it is told before the gateway is replaced")


def test_a_peer_whose_daemon_is_gone(daemons: TwoDaemons) -> None:
    """A known peer that does not answer: the error says so, because the call has certainly not been executed."""
    ticket = ticket_of(daemons.two, "bob")
    daemons.two.stop()
    try:
        call = ("call", ticket, "Echo", "--as", "alice", "--timeout", "1")
        done = daemons.one.cli(*call, input='{"message": "hi"}')
        while done.returncode == ExitCode.TIMEOUT:  # the machine stood still
            done = daemons.one.cli(*call, input='{"message": "hi"}')
        assert done.returncode == ExitCode.PEER, done.stderr
        assert done.stdout == ""
        assert f"{daemons.bob} cannot be reached" in done.stderr
        assert "Is its daemon running?" in done.stderr
    finally:
        daemons.two.start()
        daemons.two.wait_actor("identity-bob")
    add_binding(daemons.two, "bob", "Echo", "afterwards")
    done = daemons.one.cli("call", ticket, "Echo", "afterwards", "--as", "alice", input='{"message": "hi"}')
    assert done.stdout == '{"echoed":"Echo: hi"}\n', done.stderr
