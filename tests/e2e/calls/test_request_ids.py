"""A request id names a call in the program, in the handler, in errors, and in the logs of both daemons."""

from __future__ import annotations

import json

import msgspec
import pytest

from fastn_p2p_client import ApplicationError, Client, HandlerFailed
from fastn_p2p_client.errors import P2PError, ProtocolNotFound
from fastn_p2p_client.ipc.messages import Call, encode
from fastn_p2p_client.request_id import is_request_id
from tests.support.daemons import Daemon, eventually
from tests.support.raw_connections import REPLY, Raw
from tests.support.two_daemons import TwoDaemons, add_binding


@pytest.fixture(scope="module")
def conformance(daemons: TwoDaemons) -> None:
    """bob tells callers what his handler sees."""
    add_binding(daemons.two, "bob", "Conformance", "default", "everyone")


def logged(daemon: Daemon, request_id: str) -> list[dict[str, str]]:
    run = daemon.cli("logs", "--request", request_id, "--json")
    return [json.loads(line) for line in run.stdout.splitlines()]


def actors_of(daemon: Daemon, request_id: str) -> set[str]:
    found = logged(daemon, request_id)
    assert {each["request_id"] for each in found} <= {request_id}
    return {each["actor"] for each in found}


@pytest.mark.parametrize("chosen", ["", "my-request.1"])
@pytest.mark.parametrize("retry", [False, True])
async def test_a_call_that_fails_is_found_in_the_logs_of_both_daemons(
    daemons: TwoDaemons, client: Client, chosen: str, retry: bool
) -> None:
    with pytest.raises(HandlerFailed) as failed:
        await client.call("alice", daemons.bob, "Trial", request={"do": "raise"}, request_id=chosen, retry=retry)
    request_id = failed.value.request_id
    assert request_id == chosen or (not chosen and is_request_id(request_id))
    eventually(lambda: "identity-bob" in actors_of(daemons.two, request_id), "the handler's failure is in bob's log")
    eventually(lambda: "network" in actors_of(daemons.one, request_id), "the failed call is in alice's log")


async def test_calls_have_ids_of_their_own(daemons: TwoDaemons, client: Client) -> None:
    seen = set()
    for _ in range(3):
        with pytest.raises(ApplicationError) as refused:
            await client.call("alice", daemons.bob, "Trial", request={"do": "refuse"})
        seen.add(refused.value.request_id)
    assert len(seen) == 3
    assert all(seen)


async def test_a_session_has_one(daemons: TwoDaemons, client: Client) -> None:
    async with await client.connect("alice", daemons.bob, "Trial", initial={"do": "echo"}) as session:
        assert is_request_id(session.request_id)
        assert session.request_id
    with pytest.raises(P2PError) as failed:
        await client.connect("alice", daemons.bob, "Nothing", request_id="session-1")
    assert failed.value.request_id == "session-1"
    eventually(lambda: "network" in actors_of(daemons.one, "session-1"), "the session is in alice's log")


def test_a_command_prints_it(daemons: TwoDaemons) -> None:
    run = daemons.one.cli("call", daemons.bob, "Nothing", "--data", "{}", "--json", "--request-id", "shell-1")
    error = json.loads(run.stdout)["error"]
    assert (error["code"], error["request_id"]) == (ProtocolNotFound.code, "shell-1")


@pytest.mark.parametrize("request_id", ["", "garbage\n2026-01-31T12:00:00.000Z ERROR network: forged", "x" * 60_000])
@pytest.mark.usefixtures("conformance")
def test_the_id_of_a_strange_or_old_program_is_replaced(daemons: TwoDaemons, request_id: str) -> None:
    fields = msgspec.msgpack.decode(
        encode(Call("alice", daemons.bob, "Conformance", "default", 30_000, "left", request_id=request_id))
    )
    header = msgspec.msgpack.encode(fields if request_id else fields[:9])
    with Raw(daemons.one.home.mailbox("network")) as raw:
        assert raw.send(b"one", header, msgspec.msgpack.encode(None))
        answer = raw.receive()
    assert answer is not None
    assert msgspec.msgpack.decode(answer[1])[0] == REPLY
    found = msgspec.msgpack.decode(answer[2])["request_id"]
    assert is_request_id(found)
    assert found
