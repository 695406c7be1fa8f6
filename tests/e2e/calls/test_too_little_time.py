"""Timeouts that nothing can keep are timeouts, at every hop and in every place; and peers that are down say so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client import Client, sync
from fastn_p2p_client.errors import DeadlineExceeded, PeerUnreachable
from fastn_p2p_client.ipc.messages import AddPeer, GetStatus, GetTicket
from tests.support.signer import Signer
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, start_two_daemons

HI: Final = {"message": "hi"}
NOBODY: Final = Signer("nobody").key.id52
NO_TIME: Final = [0.0, -1.0, -math.inf, math.nan, 1e-9, 0.0001, 0.001, 0.003]


async def connect(client: Client, peer: str, timeout: float) -> None:
    """A session may stand within a millisecond."""
    session = await client.connect("alice", peer, "Trial", initial={"do": "echo"}, timeout=timeout)
    session.reset()
    assert timeout > 0
    raise DeadlineExceeded(seconds=timeout)


def connect_blocking(client: sync.Client, peer: str, timeout: float) -> None:
    """Open a session with the blocking API within ``timeout`` seconds."""
    session = client.connect("alice", peer, "Trial", initial={"do": "echo"}, timeout=timeout)
    session.reset()
    assert timeout > 0
    raise DeadlineExceeded(seconds=timeout)


ASYNC: Final[dict[str, Callable[[Client, str, float], Coroutine[Any, Any, Any]]]] = {
    "call": lambda client, peer, timeout: client.call("alice", peer, "Trial", request={"do": "wait"}, timeout=timeout),
    "call, retried": lambda client, peer, timeout: client.call(
        "alice", peer, "Trial", request={"do": "wait"}, timeout=timeout, retry=True
    ),
    "connect": connect,
    "wait_until_online": lambda client, _, timeout: client.wait_until_online("alice", NOBODY, timeout=timeout),
    "control": lambda client, _, timeout: client.control(GetStatus(), timeout=min(timeout, 1e-6)),
    "start": lambda client, _, timeout: client.start(timeout=min(timeout, 1e-6)),
}
BLOCKING: Final[dict[str, Callable[[sync.Client, str, float], Any]]] = {
    "call": lambda client, peer, timeout: client.call("alice", peer, "Trial", request={"do": "wait"}, timeout=timeout),
    "connect": connect_blocking,
    "control": lambda client, _, timeout: client.control(GetStatus(), timeout=min(timeout, 1e-6)),
}


@pytest.mark.parametrize("name", ASYNC)
async def test_too_little_time_is_a_timeout(daemons: TwoDaemons, name: str) -> None:
    """With a client that has not said hello yet; one that has is used below."""
    for timeout in NO_TIME:
        for peer in (daemons.bob, daemons.alice):
            async with Client(daemons.one.home) as client:
                # The gateway may answer within a millisecond, the least that an event loop's timer waits.
                quick = name in ("control", "start") and timeout > 0
                with suppress(DeadlineExceeded) if quick else pytest.raises(DeadlineExceeded):
                    await ASYNC[name](client, peer, timeout)


@pytest.mark.parametrize("name", [name for name in ASYNC if name != "start"])
async def test_too_little_time_is_a_timeout_also_when_all_connections_stand(daemons: TwoDaemons, name: str) -> None:
    async with Client(daemons.one.home) as client:
        await client.call("alice", daemons.bob, "Echo", request=HI)
        for timeout in NO_TIME:
            for peer in (daemons.bob, daemons.alice):
                # The gateway may answer within a millisecond.
                expected = suppress(DeadlineExceeded) if name == "control" else pytest.raises(DeadlineExceeded)
                with expected:
                    await ASYNC[name](client, peer, timeout)
        assert await client.call("alice", daemons.bob, "Echo", request=HI), "and it goes on"


@pytest.mark.parametrize("name", BLOCKING)
def test_too_little_time_is_a_timeout_in_blocking_programs(daemons: TwoDaemons, name: str) -> None:
    for timeout in NO_TIME:
        expected = suppress(DeadlineExceeded) if name == "control" and timeout > 0 else pytest.raises(DeadlineExceeded)
        with daemons.one.client() as client, expected:
            BLOCKING[name](client, daemons.bob, timeout)


@pytest.mark.parametrize("command", ["call", "stream"])
@pytest.mark.parametrize(("timeout", "code"), [("0.001", 6), ("0.00001", 6), ("0", 2), ("-1", 2), ("nan", 2)])
def test_too_little_time_on_the_command_line(daemons: TwoDaemons, command: str, timeout: str, code: int) -> None:
    done = daemons.one.cli(command, daemons.bob, "Trial", "--data", "{}", "--as", "alice", f"--timeout={timeout}")
    assert done.returncode == code, done.stderr
    assert "restarted" not in done.stderr


# ── a peer that is down ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def unreachable() -> Iterator[TwoDaemons]:
    """alice knows bob and his address; his daemon has gone."""
    with start_two_daemons(share_host=False, echo=False) as daemons:
        with daemons.two.client() as two, daemons.one.client() as one:
            ticket = two.control(GetTicket("bob"))
            one.control(AddPeer(ticket.ticket, "bob"))
        daemons.two.kill()
        yield daemons


async def test_the_error_says_what_was_tried(unreachable: TwoDaemons) -> None:
    """The daemon says so shortly before the deadline, at which a program that has heard nothing gives up."""
    async with Client(unreachable.one.home) as client:
        for requested in (client.call, client.connect):
            errors: list[str] = []
            while not errors:  # a machine that stands still lets the deadline pass
                with pytest.raises((PeerUnreachable, DeadlineExceeded)) as error:
                    await requested("alice", "bob", "Echo", timeout=2)
                if isinstance(error.value, PeerUnreachable):
                    errors.append(str(error.value))
            assert re.search(r"bob cannot be reached: tried 127.*:\d+ .*for .* s:", errors[0])


COMMANDS: Final = {
    "call": ["call", "bob", "Echo", "--data", "{}", "--timeout", "2"],
    "stream": ["stream", "bob", "Echo", "--timeout", "2"],
    "files": ["files", "ls", "bob"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_people_are_told_that_a_peer_is_not_reached_yet(unreachable: TwoDaemons, name: str) -> None:
    with on_terminal(unreachable.one.env, *COMMANDS[name]) as tty:
        tty.until(lambda rows: any("connecting to bob..." in row for row in rows), "the notice")


def test_pipes_are_told_nothing(unreachable: TwoDaemons) -> None:
    done = unreachable.one.cli(*COMMANDS["call"])
    while done.returncode == ExitCode.TIMEOUT:  # the machine stood still
        done = unreachable.one.cli(*COMMANDS["call"])
    assert done.returncode == ExitCode.PEER
    assert "connecting" not in done.stderr
    assert "tried 127.0.0.1:" in done.stderr


def test_a_handler_that_takes_its_time_is_no_connection_that_is_missing(daemons: TwoDaemons) -> None:
    arguments = ["call", daemons.bob, "Trial", "--data", '{"do": "wait"}', "--as", "alice", "--timeout", "2.5"]
    with on_terminal(daemons.one.env, *arguments) as tty:
        tty.until(lambda rows: any("no reply within" in row for row in rows), "the end")
        assert not any("connecting" in row for row in tty.rows)
