"""A new transport key: calls that may be repeated are not lost, and whoever has the old key is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_client import Client
from fastn_p2p_client.errors import EpochRetired, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import DEADLINE, Daemon, eventually
from tests.support.processes import send_signal, signal_if_alive


@dataclass
class Scene:
    folder: Path
    one: Daemon
    two: Daemon
    alice: str
    bob: str

    def epoch(self) -> int:
        """Return the epoch of the key on disk at ``one``."""
        header = json.loads((self.one.home.vault / "transport.key").read_bytes()[:HEADER_BYTES])
        return int(header["epoch"])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """alice is online at ``one``, bob at ``two``. Each test raises the epoch of ``one``."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        folder = Path(name)
        one, two = made = [Daemon(folder / each, folder / "hosts") for each in ("one", "two")]
        try:
            for daemon in made:
                daemon.launch()
            for daemon in made:
                assert daemon.wait_ready(), daemon.report()
            yield Scene(folder, one, two, one.identity("alice"), two.identity("bob"))
        finally:
            for daemon in made:
                daemon.clean_up()


def call(daemon: Daemon, identity: str, peer: str) -> P2PError | None:
    """Call Echo. Return the error, or None after a reply."""
    with daemon.client() as client:
        try:
            client.call(identity, peer, "Echo", "default", {"message": "hi"}, timeout=DEADLINE, retry=True)
        except P2PError as error:
            return error
    return None


def test_calls_survive_and_a_copy_of_the_home_is_refused(scene: Scene) -> None:
    with scene.two.client() as two:
        ticket = two.control(m.GetTicket("bob")).ticket
    with scene.one.client() as one:
        one.control(m.AddPeer(ticket, "bobby"))
        old = one.control(m.GetTicket("alice")).ticket
    assert call(scene.one, "alice", "bobby") is None
    assert call(scene.two, "bob", scene.alice) is None
    thief, epoch = copy_of(scene), scene.epoch()
    before = scene.one.status().endpoint
    asyncio.run(calls_while(scene, lambda: rotate(scene)))
    status = scene.one.status()
    assert status.endpoint != before
    assert status.transport_epoch == scene.epoch() == epoch + 1
    assert status.transport_since[:2] == "20"
    assert f"epoch {epoch + 1}" in scene.one.shown_status()
    assert '"transport-rotated"' in scene.one.cli("log", "audit", "--json").stdout
    with scene.two.client() as two:
        two.control(m.AddPeer(old, "ally"))
    assert call(scene.two, "bob", "ally") is None, "a ticket of before leads to the new endpoint"
    try:
        thief.launch()
        assert thief.wait_ready(), thief.report()
        eventually(lambda: thief.status().identities[0].online, "the thief speaks for alice")
        error = call(thief, "alice", scene.bob)
        assert isinstance(error, EpochRetired), error
    finally:
        thief.clean_up()
    assert call(scene.two, "bob", "ally") is None


def copy_of(scene: Scene) -> Daemon:
    """Return the daemon of a thief who has copied the home of ``one``."""
    thief = Daemon(scene.folder / "thief", scene.folder / "hosts")
    for part in ("vault", "identities", "peers"):
        shutil.copytree(scene.one.home.path / part, thief.home.path / part, symlinks=True)
    return thief


def rotate(scene: Scene) -> None:
    epoch = scene.epoch() + 1
    ended = scene.one.cli("transport", "rotate")
    assert ended.returncode == 0, ended.stderr + scene.one.report()
    assert f"epoch {epoch}" in ended.stderr


async def calls_while(scene: Scene, change: Callable[[], object]) -> None:
    """Call in both directions, all the time, while something changes. Every call must get its reply."""
    ended = asyncio.Event()
    progress = asyncio.Event()
    replies = [0, 0]

    async def repeat(client: Client, identity: str, peer: str, number: int) -> None:
        while not ended.is_set():
            message = {"message": "hi"}
            await client.call(identity, peer, "Echo", "default", message, timeout=DEADLINE, retry=True)
            replies[number] += 1
            progress.set()

    async def until_replies(more: int) -> None:
        goal = [number + more for number in replies]
        while any(number < wanted for number, wanted in zip(replies, goal, strict=True)):
            progress.clear()
            async with asyncio.timeout(DEADLINE):
                await progress.wait()

    async with Client(scene.one.home) as one, Client(scene.two.home) as two, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(repeat(one, "alice", scene.bob, 0))
            group.create_task(repeat(two, "bob", scene.alice, 1))
        try:
            await until_replies(10)
            await asyncio.to_thread(change)
            await until_replies(10)
        finally:
            ended.set()


@contextmanager
def rotating(scene: Scene) -> Iterator[None]:
    """Ask ``one`` for a new key while the block runs. The command fails, as its gateway ends in the block, unless the
    supervisor has replaced the stopped network process before, as it does on a busy machine."""

    def ask() -> None:
        with scene.one.client() as client, suppress(P2PError):
            client.control(m.RotateTransport(), timeout=DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        yield
        asked.result()


def test_killed_after_the_commit_the_next_start_has_the_new_key(scene: Scene) -> None:
    """The network process is stopped, so the command waits between its steps."""
    assert call(scene.two, "bob", scene.alice) is None
    epoch, network = scene.epoch() + 1, scene.one.pid("network")
    send_signal(network, signal.SIGSTOP)
    with rotating(scene):
        eventually(lambda: scene.epoch() == epoch, "the new key is on disk")
        scene.one.kill()
        signal_if_alive(network, signal.SIGCONT)
    scene.one.start()
    assert scene.one.status().transport_epoch == epoch
    # The first call may be sent over a connection to the daemon that was killed, and then says that it may be executed.
    eventually(lambda: call(scene.two, "bob", scene.alice) is None, "she is called")


def test_a_killed_gateway_finishes_the_rotation_after_its_restart(scene: Scene) -> None:
    before, epoch = scene.one.status().endpoint, scene.epoch() + 1
    network = scene.one.pid("network")
    send_signal(network, signal.SIGSTOP)
    with rotating(scene):
        eventually(lambda: scene.epoch() == epoch, "the new key is on disk")
        scene.one.kill_actor("gateway")
        signal_if_alive(network, signal.SIGCONT)

    def is_moved() -> bool:
        try:
            return scene.one.status().endpoint not in ("", before)
        except P2PError:
            return False

    eventually(is_moved, "the endpoint has the new key")
    assert call(scene.two, "bob", scene.alice) is None


def test_a_locked_vault_says_how_to_unlock_it(scene: Scene) -> None:
    epoch = scene.epoch()
    (scene.folder / "vault").write_text("of the vault\n")
    for command in (("set-passphrase", "--passphrase-file", str(scene.folder / "vault")), ("lock",)):
        ended = scene.one.cli("vault", *command)
        assert ended.returncode == 0, ended.stderr
    ended = scene.one.cli("transport", "rotate")
    assert ended.returncode == 15
    assert "rotating the transport key is not possible. Unlock it: fastn-p2p vault unlock" in ended.stderr
    assert scene.epoch() == epoch
    assert scene.one.cli("vault", "unlock", "--passphrase-file", str(scene.folder / "vault")).returncode == 0
    rotate(scene)
    assert call(scene.two, "bob", scene.alice) is None
