"""Fixtures of end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from fastn_p2p_client import Client, sync
from fastn_p2p_client.ipc.transport.base import TRANSPORTS
from tests.support.daemons import complete_status, eventually
from tests.support.sessions import sessions_in
from tests.support.shared_daemons import SharedDaemons
from tests.support.two_daemons import TwoDaemons


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that is marked with ``both_transports`` over each, with daemons of their own."""
    if metafunc.definition.get_closest_marker("both_transports"):
        metafunc.parametrize("transport", TRANSPORTS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """The transport of every client in the module's tests, and in the programs that they start."""
    name = getattr(request, "param", TRANSPORTS[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTN_TRANSPORT", name)
        yield name


@pytest.fixture(scope="module")
def shared_daemons() -> Iterator[SharedDaemons]:
    """Daemons of the module's own, in folders that do not share them."""
    shared = SharedDaemons()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def daemons(transport: str, shared_daemons: SharedDaemons) -> Iterator[TwoDaemons]:
    """Shared by a module's tests: they may call, and put back what they change."""
    daemons = shared_daemons.lend()
    for daemon in (daemons.one, daemons.two):
        daemon.env["FASTN_TRANSPORT"] = transport
    yield daemons
    shared_daemons.clean_up()


@pytest.fixture
async def client(daemons: TwoDaemons) -> AsyncIterator[Client]:
    """Client of daemon ``one`` in the test's event loop."""
    async with Client(daemons.one.home, program="tests") as client:
        yield client


@pytest.fixture(params=["far", "near"])
def peer(daemons: TwoDaemons, request: pytest.FixtureRequest) -> str:
    """bob at the other daemon, or alice herself."""
    return daemons.bob if request.param == "far" else daemons.alice


@pytest.fixture(scope="module")
def watchers(daemons: TwoDaemons) -> Iterator[list[sync.Client]]:
    """A connection to each daemon."""
    with daemons.one.client() as one, daemons.two.client() as two:
        yield [one, two]


@pytest.fixture
def assert_no_session_left(watchers: list[sync.Client]) -> Iterator[None]:
    """No session stands once the test has ended."""
    yield

    eventually(lambda: sum(sessions_in(complete_status(each)) for each in watchers) == 0, "no session is left")
