"""What every test may use: real daemons that leave nothing behind, and settings of the test tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness import Daemon

# Deadlines of single examples say more about a shared machine than about the code.
settings.register_profile("fastn", deadline=None)
settings.load_profile("fastn")

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """A host directory of the test's own."""
    return tmp_path / "hosts"


@pytest.fixture
def make_daemon(tmp_path: Path, hosts: Path) -> Iterator[MakeDaemon]:
    """Makes daemons that share a host directory and end with the test."""
    made: list[Daemon] = []

    def make(name: str = "one", **env: str) -> Daemon:
        daemon = Daemon(tmp_path / name, hosts, **env)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.clean_up()


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """One daemon, ready."""
    return make_daemon().start()


@pytest.fixture
def pair(make_daemon: MakeDaemon) -> tuple[Daemon, Daemon]:
    """Two daemons, ready."""
    first, second = make_daemon("one"), make_daemon("two")
    first.launch()
    second.start()
    assert first.wait_ready(), first.report()
    return first, second
