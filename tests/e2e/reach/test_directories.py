"""Daemons with host directories of their own find each other by ID52 alone, through directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon, eventually
from tests.support.directories import RelayProcess, running_directory

NOWHERE = "http://127.0.0.1:1/pkarr"
"""Nothing listens there."""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RelayProcess]:
    with running_directory(tmp_path / "directory.sqlite") as relay:
        yield relay


def started(make_daemon: MakeDaemon, tmp_path: Path, name: str, *urls: str) -> Daemon:
    """A daemon that shares no host directory with others."""
    daemon = make_daemon(name, FASTN_HOST_DIRECTORY=str(tmp_path / f"hosts-{name}"), FASTN_DIRECTORIES=" ".join(urls))
    return daemon.start()


def call(daemon: Daemon, id52: str, timeout: str = "10") -> str:
    done = daemon.cli("call", id52, "Echo", "--data", '{"message": "hi"}', "--timeout", timeout)
    return done.stdout if done.returncode == 0 else done.stderr


def test_a_daemon_calls_another_by_id52(make_daemon: MakeDaemon, tmp_path: Path, directory: RelayProcess) -> None:
    one = started(make_daemon, tmp_path, "one", directory.url)
    two = started(make_daemon, tmp_path, "two", directory.url)
    bob = two.identity("bob")
    one.identity("alice")
    assert eventually(lambda: "hi" in call(one, bob), "bob is found"), call(one, bob)
