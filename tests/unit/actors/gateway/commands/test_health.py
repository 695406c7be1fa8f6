"""Health from the replies of all actors: each that is not well is a problem, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastn_p2p.console.exit_codes import EXITS, ExitCode
from fastn_p2p_actors.network.admin_messages import GetNetworkReport
from fastn_p2p_actors.runtime.control_channel import ProcessInfo
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from tests.support.stub_actors import RunningGateway, running_gateway, temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


async def problems(gateway: RunningGateway) -> list[tuple[str, str]]:
    reply = await gateway.request(m.GetHealth(), m.HealthReply)
    assert all(each.text and EXITS[each.code] != ExitCode.INTERNAL for each in reply.problems)
    return [(each.part, each.code) for each in reply.problems]


async def test_actors_that_are_not_well_are_problems(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p_actors.gateway.commands.health._SECONDS", 0.3)
    async with running_gateway(home) as gateway:
        assert await problems(gateway) == []
        gateway.vault.locked = True
        assert await problems(gateway) == [("vault", "vault-locked")]
        gateway.vault.locked = False
        gateway.network.ignore.add(GetNetworkReport)
        gateway.supervisor.silent = True
        assert await problems(gateway) == [("supervisor", "daemon-busy"), ("network", "daemon-busy")]


async def test_a_process_that_is_not_ready_is_a_problem_and_an_identity_that_fails(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_gateway(home) as gateway:
        states = {"identity-bob": "failed", "identity-carol": "starting", "vault": "backoff", "network": "ready"}

        async def processes(_client: object, _timeout: float) -> list[ProcessInfo]:
            return [ProcessInfo(name, 1, state, 0, 0, last_exit="signal 9") for name, state in states.items()]

        monkeypatch.setattr("fastn_p2p_actors.gateway.actor_clients.SupervisorClient.processes", processes)
        reply = await gateway.request(m.GetHealth(), m.HealthReply)
        assert [(each.part, each.code) for each in reply.problems] == [
            ("vault", "daemon-busy"),
            ("identity-bob", "identity-failed"),
        ]
        assert reply.problems[0].text == "vault is backoff; it last ended with: signal 9"
