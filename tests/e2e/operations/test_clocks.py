"""Daemons whose clock is wrong and then put right: their peers reach them again at once, and ``status`` says it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client.errors import P2PError
from tests.support.daemons import Daemon, eventually
from tests.support.shifted_clock import ShiftedClock

HOUR: Final = 3600.0


class Shifted:
    """``alice`` is at a daemon whose clock can be set, ``bob`` at one whose clock is right."""

    def __init__(self, folder: Path) -> None:
        clock = ShiftedClock(folder / "site")
        self.set = clock.set
        self.set(5 * HOUR)
        hosts = folder / "hosts"
        self.one = Daemon(folder / "one", hosts, PYTHONPATH=str(clock.site))
        self.two = Daemon(folder / "two", hosts)

    def start(self) -> None:
        self.one.start()
        self.two.start()
        self.alice = self.one.identity("alice")
        self.bob = self.two.identity("bob")
        self.two.cli("peer", "add", self.alice, "--name", "alice")
        self.one.cli("peer", "add", self.bob, "--name", "bob")

    def set_and_noticed(self, seconds: float) -> None:
        """Set it, and wait until the network process has seen it and has renewed what is signed."""
        log = self.one.home.logs / "network.log"
        before = log.read_text().count("delegation of alice renewed")
        self.set(seconds)
        eventually(lambda: log.read_text().count("delegation of alice renewed") > before, "renewed")

    def calls(self, caller: Daemon, name: str, peer: str) -> bool:
        with caller.client() as client:
            try:
                return bool(client.call(name, peer, "Echo", request={"message": "x"}, timeout=2))
            except P2PError:
                return False

    def alice_calls(self) -> bool:
        return self.calls(self.one, "alice", self.bob)

    def bob_calls(self) -> bool:
        return self.calls(self.two, "bob", self.alice)

    def assert_both_call(self) -> None:
        eventually(self.bob_calls, "bob reaches alice")
        eventually(self.alice_calls, "alice reaches bob")

    def warnings(self, daemon: Daemon) -> str:
        return "\n".join(daemon.status().warnings)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shifted]:
    """Begins with a clock that is five hours ahead."""
    both = Shifted(tmp_path_factory.mktemp("clocks"))
    try:
        both.start()
        yield both
    finally:
        both.one.clean_up()
        both.two.clean_up()


def test_ahead_at_the_start_and_put_right(shifted: Shifted) -> None:
    """The peer whose clock was always right has been shown what holds only in hours: it says so, and forgets it."""
    assert not shifted.bob_calls()
    assert not shifted.alice_calls()
    assert "alice's delegation starts in 5 hours by this machine's clock" in shifted.warnings(shifted.two)
    shifted.set(0)
    shifted.assert_both_call()
    assert "clock was set back by 5 hours" in shifted.warnings(shifted.one)


@pytest.mark.parametrize(
    "hours",
    [-5.0, 30.0, -100.0, -time.time() / HOUR, -time.time() / HOUR - 10],
    ids=["5 h back", "30 h ahead", "100 h back", "1970", "before 1970"],
)
def test_set_wrong_while_it_runs_and_put_right(shifted: Shifted, hours: float) -> None:
    shifted.assert_both_call()
    shifted.set_and_noticed(hours * HOUR)
    shifted.bob_calls()
    shifted.alice_calls()
    shifted.set_and_noticed(0)
    shifted.assert_both_call()


@pytest.mark.parametrize("hours", [-5.0, -time.time() / HOUR - 10], ids=["5 h back", "before 1970"])
def test_behind_at_the_start_and_put_right(shifted: Shifted, hours: float) -> None:
    shifted.one.stop()
    shifted.set(hours * HOUR)
    shifted.one.start()
    eventually(lambda: shifted.one.status().identities[0].online, "alice is online, whatever the year")
    assert "this machine's clock" in shifted.warnings(shifted.one)
    shifted.bob_calls()
    shifted.alice_calls()
    shifted.set(0)
    shifted.assert_both_call()


def test_a_ticket_from_the_future_does_not_shadow_those_that_come_after(shifted: Shifted) -> None:
    """Both clocks were ahead when it was added, and both are right now, also in the vault's memory."""
    shifted.set_and_noticed(5 * HOUR)
    ahead = shifted.one.cli("ticket", "alice").stdout.strip()
    carol = Daemon(shifted.one.home.path.parent / "three", Path(shifted.one.env["FASTN_HOST_DIRECTORY"]))
    carol.env["PYTHONPATH"] = shifted.one.env["PYTHONPATH"]
    try:
        carol.start()
        assert carol.cli("peer", "add", ahead, "--name", "alice").returncode == 0
        shifted.set_and_noticed(0)
        vault = shifted.one.kill_actor("vault")
        shifted.one.wait_actor("vault", vault)
        shifted.assert_both_call()
        now = shifted.one.cli("ticket", "alice").stdout.strip()
        added = carol.cli("peer", "add", now, "--name", "alice")
        assert added.returncode == 0, added.stderr
    finally:
        carol.clean_up()
