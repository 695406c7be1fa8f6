"""Errors of ``connect`` to a peer daemon and inside one daemon, and what has reached the handler by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

import fastn_p2p_client.errors as e
from fastn_p2p_client import Client
from fastn_p2p_client.limits import MAX_INITIAL
from tests.support.daemons import Daemon
from tests.support.requests import STRANGER, assert_same_error, known_nowhere
from tests.support.sessions import daemon_of, outcome, read_all
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of, final_counts, handlers_at_work, until

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport", "assert_no_session_left")]

NOBODY_ASKS: Final = {"identity": "alice", "protocol": "Trial", "instance": "default", "initial": {"do": "echo"}}


REFUSED_REQUESTS: dict[str, tuple[dict[str, Any], Callable[[TwoDaemons, str], Exception]]] = {
    "a name that is nobody's": ({"peer": "nobody"}, lambda w, p: e.PeerUnknown(peer="nobody")),
    "an ID52 that nobody knows": ({"peer": STRANGER}, lambda w, p: known_nowhere()),
    "no such identity": ({"identity": "nobody"}, lambda w, p: e.IdentityOffline(identity="nobody")),
    "an identity that is offline": ({"identity": "erin"}, lambda w, p: e.IdentityOffline(identity="erin")),
    "a protocol that is not there": ({"protocol": "Nope"}, lambda w, p: e.ProtocolNotFound(peer=p, protocol="Nope")),
    "an instance that is not there": (
        {"instance": "nope"},
        lambda w, p: e.InstanceNotFound(peer=p, protocol="Trial", instance="nope"),
    ),
    "a protocol without sessions": (
        {"protocol": "Echo"},
        lambda w, p: e.BadRequest(protocol="Echo", reason="it takes no sessions"),
    ),
    "a handler that crashes at once": (
        {"initial": {"do": "raise"}},
        lambda w, p: e.HandlerFailed(peer=p, protocol="Trial", reason="RuntimeError"),
    ),
    "initial data that is too large": (
        {"initial": b"x" * MAX_INITIAL},
        lambda w, p: e.PayloadTooLarge(size=MAX_INITIAL + 5, limit=MAX_INITIAL),
    ),
    "a name that no protocol can have": (
        {"protocol": "no-good"},
        lambda w, p: e.InvalidName(
            name="no-good", what="a protocol", reason="it starts with a letter, then letters and digits"
        ),
    ),
    "no answer in time": (
        {"initial": {"do": "ponder"}, "timeout": 0.4},
        lambda w, p: e.DeadlineExceeded(seconds=0.4),
    ),
}


@pytest.fixture(scope="module")
def erin(daemons: TwoDaemons) -> None:
    """An identity that is offline."""
    daemons.one.identity("erin", online=False)


@pytest.mark.usefixtures("erin")
@pytest.mark.parametrize("name", REFUSED_REQUESTS)
async def test_connect_raises_what_is_wrong(daemons: TwoDaemons, peer: str, name: str, client: Client) -> None:
    changed, expected = REFUSED_REQUESTS[name]
    arguments = {"peer": peer, **NOBODY_ASKS, **changed}
    assert_same_error(await outcome(client.connect(**arguments)), expected(daemons, peer))


async def test_initial_data_of_the_largest_size_arrives(daemons: TwoDaemons, peer: str, client: Client) -> None:
    frame = len(msgspec.msgpack.encode({"do": "who", "more": bytes(1000)})) - 1000
    initial = {"do": "who", "more": bytes(MAX_INITIAL - frame)}
    assert len(msgspec.msgpack.encode(initial)) == MAX_INITIAL
    async with await client.connect("alice", peer, "Trial", initial=initial) as session:
        assert (await read_all(session)).startswith(daemons.alice.encode())


async def test_a_stranger_is_denied_before_the_handler_is_asked(daemons: TwoDaemons, client: Client) -> None:
    add_binding(daemons.two, "bob", "Trial", "private", "peers")
    refused = await outcome(client.connect("alice", daemons.bob, "Trial", "private", {"do": "echo"}))
    assert_same_error(refused, e.Denied(peer=daemons.bob, protocol="Trial", instance="private"))
    assert binding_of(daemons.two, "bob", "Trial", "private").opened == 0


async def test_a_connect_that_is_cancelled_cancels_the_handler(daemons: TwoDaemons, peer: str, client: Client) -> None:
    """Long before its deadline."""
    daemon, name = daemon_of(daemons, peer)
    before = final_counts(daemon, name)["cancelled"]

    connecting = asyncio.create_task(client.connect("alice", peer, "Trial", initial={"do": "ponder"}, timeout=30))
    await until(lambda: handlers_at_work(daemon, name), "the handler is asked")
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await until(lambda: final_counts(daemon, name)["cancelled"] == before + 1, "the handler was cancelled")


async def test_no_daemon_is_said_as_such(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("nobody")
    async with Client(daemon.home) as client:
        error = await outcome(client.connect(None, STRANGER, "Trial"))
    assert_same_error(error, e.DaemonNotRunning(home=str(daemon.home.path)))
