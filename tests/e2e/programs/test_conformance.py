"""A protocol behaves alike in every kind of program, for local and for remote callers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.ipc.messages import AddProtocol, RemoveProtocol
from fastn_p2p_client.testing import ProtocolClient, check_errors, check_requests, check_streams
from tests.support.daemons import eventually
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport")]

PROGRAMS = {
    "Awaited": """
import asyncio
from fastn_p2p_client import serve_all
from fastn_p2p_client.testing import Conformance

server = serve_all()
server.protocol(Conformance, "Awaited")
asyncio.run(server.serve())
""",
    "Blocking": """
from fastn_p2p_client.sync import serve_all
from fastn_p2p_client.testing import Conformance

server = serve_all()
server.protocol(Conformance, "Blocking")
server.serve()
""",
}
HOSTED = "Conformance"


@contextmanager
def running(daemons: TwoDaemons, protocol: str) -> Iterator[None]:
    """A program that serves it as bob."""
    with daemons.two.client() as client:
        client.control(AddProtocol("bob", protocol, "default", ("everyone",), True))
        program = subprocess.Popen([sys.executable, "-c", PROGRAMS[protocol]], env=daemons.two.env)
        try:
            yield
        finally:
            program.terminate()
            program.wait(60)
            client.control(RemoveProtocol("bob", protocol, "default"))


@pytest.fixture(scope="module")
def served(daemons: TwoDaemons) -> Iterator[TwoDaemons]:
    """bob has it in each way."""
    with ExitStack() as stack:
        for protocol in PROGRAMS:
            stack.enter_context(running(daemons, protocol))
        add_binding(daemons.two, "bob", HOSTED)

        def all_serve() -> bool:
            return {binding_of(daemons.two, "bob", each).state for each in (*PROGRAMS, HOSTED)} == {"serving"}

        eventually(all_serve, "all three serve")
        yield daemons


Check = Callable[[ProtocolClient], Awaitable[None]]


@pytest.mark.parametrize("check", [check_requests, check_errors, check_streams])
@pytest.mark.parametrize("caller", ["alice", "bob"])
@pytest.mark.parametrize("protocol", [HOSTED, *PROGRAMS])
async def test_it_conforms(served: TwoDaemons, protocol: str, caller: str, check: Check) -> None:
    """alice calls from another daemon, bob from the same one."""
    async with Client(served.one.home if caller == "alice" else served.two.home) as client:
        await check(ProtocolClient(client, caller, served.bob, protocol))  # does not raise


def test_status_shows_which_is_which(served: TwoDaemons) -> None:
    assert binding_of(served.two, "bob", HOSTED).programs == 0
    for protocol in PROGRAMS:
        assert binding_of(served.two, "bob", protocol).programs == 1
