"""What end-to-end tests may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.world import World, new_world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Shared by a module's tests: they may call, and put back what they change."""
    with new_world() as world:
        yield world
