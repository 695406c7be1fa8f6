"""Identities that fall asleep: without a process until an admitted request wakes them, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastn_p2p_client import Client, Denied, P2PError, PeerOffline, sync
from fastn_p2p_client.ipc.messages import DeleteIdentity, IdentityStatus, SetIdentityOnline, SetIdle, SetProtocol
from fastn_p2p_client.serving.server import Server
from tests.support.daemons import DEADLINE, Daemon, eventually
from tests.support.serving_programs import serving
from tests.support.shifted_clock import ShiftedClock

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}


class Pair:
    """``alice`` sleeps at a daemon whose clock can be set; ``bob``, whom she knows, and ``eve`` are at another one."""

    def __init__(self, folder: Path) -> None:
        self.clock = ShiftedClock(folder / "site")
        self.clock.set(0)
        self.one = Daemon(folder / "one", folder / "hosts", PYTHONPATH=str(self.clock.site))
        self.two = Daemon(folder / "two", folder / "hosts")

    def start(self) -> None:
        self.one.start()
        self.two.start()
        self.alice = self.one.identity("alice", echo=False)
        bob = self.two.identity("bob", echo=False)
        self.two.identity("eve", echo=False)
        self.one.cli("peer", "add", bob, "--name", "bob")
        self.one.cli("add-protocol", "alice", "--protocol", "Echo", "--allow", "peers")

    def state(self, name: str = "alice") -> IdentityStatus:
        return next(each for each in self.one.status().identities if each.name == name)

    def is_asleep(self, name: str = "alice") -> bool:
        return self.state(name).asleep and f"identity-{name}" not in self.one.processes()

    def put_to_sleep(self, name: str = "alice") -> None:
        with self.one.client() as client:
            client.control(SetIdle(name, 1))
        eventually(lambda: self.is_asleep(name), f"{name} is asleep")

    def sleep_once(self, name: str = "alice") -> None:
        """Let an identity that is asleep stay awake once it was woken, however slow the machine is."""
        with self.one.client() as client:
            client.control(SetIdle(name, 3600))
        assert self.is_asleep(name)

    def call(self, caller: str = "bob", *, timeout: float = 30, retry: bool = False) -> object:
        with self.two.client() as client:
            return client.call(caller, self.alice, "Echo", request=HI, timeout=timeout, retry=retry)

    def call_answered(self) -> bool:
        with suppress(P2PError):
            return self.call(timeout=2) == ECHOED
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("sleep"))
    try:
        pair.start()
        yield pair
    finally:
        pair.one.clean_up()
        pair.two.clean_up()


@pytest.fixture
def pair(running: Pair) -> Pair:
    """``alice`` is asleep."""
    running.put_to_sleep()
    return running


def test_call_of_a_peer_wakes_an_identity(pair: Pair) -> None:
    asleep = pair.state()
    assert asleep.online
    assert asleep.idle == 1
    pair.sleep_once()
    assert pair.call() == ECHOED
    assert not pair.state().asleep


def test_counters_and_publication_outlive_the_sleep(pair: Pair) -> None:
    before = pair.state()
    pair.call()
    after = pair.state()
    assert after.bindings[0].calls == before.bindings[0].calls + 1
    assert [each.place for each in after.publications] == [each.place for each in before.publications]


def test_refused_caller_starts_no_process(pair: Pair) -> None:
    started = pair.one.processes()
    with pytest.raises(Denied):
        pair.call("eve")
    assert pair.is_asleep()
    assert pair.one.processes().keys() == started.keys()


def test_unknown_protocol_starts_no_process(pair: Pair) -> None:
    with pair.two.client() as client, pytest.raises(P2PError) as raised:
        client.call("bob", pair.alice, "Other", request=HI)
    assert raised.value.code == "protocol-not-found"
    assert pair.is_asleep()


def test_many_calls_at_once_wake_it_once(pair: Pair) -> None:
    log = pair.one.home.logs / "network.log"
    before = log.read_text().count("alice is awake")
    pair.sleep_once()
    outcomes: list[object] = []
    threads = [threading.Thread(target=lambda: outcomes.append(pair.call())) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert outcomes == [ECHOED] * 12
    assert log.read_text().count("alice is awake") == before + 1


def test_identity_calls_while_it_is_asleep(pair: Pair) -> None:
    """The network process speaks for it, so no process is needed."""
    with pair.one.client() as client, pytest.raises(P2PError) as raised:
        client.call("alice", "bob", "Echo", request=HI)
    assert raised.value.code == "protocol-not-found"  # of bob, who was reached
    assert pair.is_asleep()


async def test_program_serves_while_it_is_asleep(pair: Pair) -> None:
    """The program's calls need no process of the identity."""

    async def echo(request: int) -> int:
        return request

    server = Server("alice", pair.one.home)
    server.handle_requests("Sum", echo, access="peers")
    async with serving(server), Client(pair.two.home) as client:
        assert await client.call("bob", pair.alice, "Sum", request=7) == 7
    assert pair.is_asleep()


@pytest.mark.parametrize("actor", ["gateway", "network", "vault"])
def test_end_of_a_core_process_leaves_it_asleep(pair: Pair, actor: str) -> None:
    before = pair.one.kill_actor(actor)
    pair.one.wait_actor(actor, before)
    eventually(pair.is_asleep, "alice is asleep again")
    eventually(pair.call_answered, "alice is woken")


def test_kill_of_the_daemon_leaves_it_asleep(pair: Pair) -> None:
    pair.one.kill()
    pair.one.start()
    eventually(lambda: pair.state().online, "alice is online")
    assert pair.is_asleep()
    eventually(pair.call_answered, "alice is woken")


def test_changed_binding_is_not_announced_as_it_was(pair: Pair) -> None:
    """While the daemon is down, the owner adds a binding by hand."""
    pair.one.stop()
    protocols = pair.one.home.identities / "alice" / "protocols" / "Echo"
    other = protocols / "other"
    other.mkdir()
    text = (protocols / "default" / "config.json").read_text().replace('"default"', '"other"')
    (other / "config.json").write_text(text)
    pair.one.start()
    with pair.two.client() as client:
        eventually(lambda: _calls(client, pair.alice, "other"), "the new binding answers")
    pair.one.cli("remove-protocol", "alice", "--protocol", "Echo", "--instance", "other", "--delete-data")


def _calls(client: sync.Client, peer: str, instance: str) -> bool:
    with suppress(P2PError):
        return bool(client.call("bob", peer, "Echo", instance, request=HI, timeout=2))
    return False


def test_crash_while_it_wakes(pair: Pair) -> None:
    """The call waits for the next process."""
    killed: list[int] = []

    def kill_the_first() -> None:
        killed.append(eventually(lambda: _pid_of(pair.one), "alice has a process", interval=0.001))
        with suppress(ProcessLookupError):
            os.kill(killed[0], signal.SIGKILL)

    killing = threading.Thread(target=kill_the_first)
    killing.start()
    try:
        assert pair.call(retry=True, timeout=DEADLINE / 2) == ECHOED  # alice stays awake for as long
    finally:
        killing.join()
    assert killed


def _pid_of(daemon: Daemon) -> int:
    """Return the process of alice while it starts, before the supervisor says that it is ready."""
    return next((each["pid"] for name, each in daemon.processes().items() if name == "identity-alice"), 0)


def test_offline_and_online(pair: Pair) -> None:
    with pair.one.client() as client:
        client.control(SetIdentityOnline("alice", False))
        assert not pair.state().online
        with pytest.raises(PeerOffline):
            pair.call()
        client.control(SetIdentityOnline("alice", True))
    eventually(pair.call_answered, "alice answers")


def test_delete(pair: Pair) -> None:
    pair.one.identity("carol")
    pair.put_to_sleep("carol")
    with pair.one.client() as client:
        client.control(DeleteIdentity("carol"))
        assert "carol" not in {each.name for each in pair.one.status().identities}
    assert not (pair.one.home.path / "run" / "asleep" / "carol.json").exists()


def test_command_for_a_binding_wakes_it(pair: Pair) -> None:
    with pair.one.client() as client:
        client.control(SetProtocol("alice", "Echo", "default", allow=("everyone",)))
        pair.put_to_sleep()
        assert pair.call("eve") == ECHOED
        client.control(SetProtocol("alice", "Echo", "default", allow=("peers",)))
    pair.put_to_sleep()
    with pytest.raises(Denied):
        pair.call("eve")


def test_idle_time_that_is_off_wakes_it_for_good(pair: Pair) -> None:
    pair.one.cli("identity", "set", "alice", "--idle", "off")
    assert not pair.state().asleep
    assert pair.state().idle == 0


@pytest.mark.parametrize("hours", [20, -20])
def test_delegation_is_renewed_when_the_clock_jumps(pair: Pair, hours: int) -> None:
    log = pair.one.home.logs / "network.log"
    before = log.read_text().count("delegation of alice renewed")
    pair.clock.set(hours * 3600)
    eventually(lambda: log.read_text().count("delegation of alice renewed") > before, "renewed")
    assert pair.is_asleep()
    pair.clock.set(0)
    eventually(lambda: log.read_text().count("delegation of alice renewed") > before + 1, "renewed again")
    eventually(pair.call_answered, "alice is woken")
