"""Two machines that share nothing but a cable: network namespaces of the test's own, the product's default mode."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("ip") is None, reason="making network namespaces takes root and iproute2"
)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them and no way out."""
    names = (f"fastn-{os.getpid()}-a", f"fastn-{os.getpid()}-b")
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_a_ticket_connects_two_machines(make_daemon: MakeDaemon, namespaces: tuple[str, str], tmp_path: Path) -> None:
    daemons: list[Daemon] = []
    for number, namespace in enumerate(namespaces):
        daemon = make_daemon(
            f"host{number}", FASTN_NETWORK="lan", FASTN_HOST_DIRECTORY=str(tmp_path / f"hosts{number}")
        )
        daemon.launch(prefix=("ip", "netns", "exec", namespace))
        daemons.append(daemon)
    alice, bob = daemons
    for daemon in daemons:
        assert daemon.wait_ready(), daemon.report()
    alice.identity("alice")
    bob_id = bob.identity("bob")

    unknown = alice.cli("call", bob_id, "Echo", "--data", '{"message": "too early"}')
    assert unknown.returncode == 4
    assert "ticket" in unknown.stderr

    ticket = bob.cli("ticket", "bob").stdout.strip()
    assert alice.cli("peer", "add", ticket, "--name", "bob").returncode == 0
    answer = alice.cli("call", "bob", "Echo", input='{"message": "over the cable"}')
    assert answer.stdout == '{"echoed":"Echo: over the cable"}\n', answer.stderr + alice.report()

    connection = alice.status().connections[0]
    assert connection.path == "direct"
    assert connection.address.startswith("10.213.0.2:")
