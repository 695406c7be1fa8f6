"""Two daemons that the tests of a module share: alice is online at one, bob at the other, both with every protocol."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p_client.messages import AddProtocol
from tests.harness import Daemon
from tests.protocols import install_protocols


@dataclass
class World:
    one: Daemon
    two: Daemon
    alice: str
    """ID52; the identity is online at ``one``."""
    bob: str
    """ID52; the identity is online at ``two``."""


def give(daemon: Daemon, name: str, protocol: str, instance: str = "default", *allow: str, **config: object) -> None:
    """Add a protocol to an identity."""
    with daemon.client() as client:
        client.control(AddProtocol(name, protocol, instance, allow), json.dumps(config).encode())


def add_identity(daemon: Daemon, name: str) -> str:
    """A new identity, online with Echo as default, short (10 characters) and private (peers only), and Trial."""
    id52 = daemon.identity(name)
    give(daemon, name, "Echo", "short", max_length=10)
    give(daemon, name, "Echo", "large", max_length=1 << 30)
    give(daemon, name, "Echo", "private", "peers")
    give(daemon, name, "Trial")
    return id52


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """See above. Tests may call; what they change they put back."""
    with tempfile.TemporaryDirectory(prefix="fastn-") as name:
        directory = Path(name)
        env = install_protocols(directory / "packages")
        one, two = (Daemon(directory / each, directory / "hosts", **env) for each in ("one", "two"))
        try:
            one.launch()
            two.start()
            assert one.wait_ready(), one.report()
            yield World(one, two, add_identity(one, "alice"), add_identity(two, "bob"))
        finally:
            one.clean_up()
            two.clean_up()
