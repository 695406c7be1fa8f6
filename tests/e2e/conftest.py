"""What end-to-end tests may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastn_p2p_client import messages as m
from fastn_p2p_client import sync
from tests.e2e.sessions import sessions_in
from tests.e2e.world import World, new_world
from tests.harness import eventually


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Shared by a module's tests: they may call, and put back what they change."""
    with new_world() as world:
        yield world


@pytest.fixture(params=["far", "near"])
def peer(world: World, request: pytest.FixtureRequest) -> str:
    """bob at the other daemon, or alice herself."""
    return world.bob if request.param == "far" else world.alice


@pytest.fixture(scope="module")
def watchers(world: World) -> Iterator[list[sync.Client]]:
    """A connection to each daemon."""
    with world.one.client() as one, world.two.client() as two:
        yield [one, two]


@pytest.fixture
def nothing_is_left(watchers: list[sync.Client]) -> Iterator[None]:
    """No session stands once the test has ended."""
    yield

    def statuses() -> list[m.Status]:
        return [reply.status for reply in (watcher.control(m.GetStatus()) for watcher in watchers)]  # type: ignore[union-attr]

    eventually(lambda: sum(map(sessions_in, statuses())) == 0, "no session is left", 5)
