"""Daemons with host directories of their own find each other by ID52 alone, through directories."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fastn_p2p_client.ipc.messages import AddProtocol, PublicationStatus
from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon, eventually
from tests.support.directories import RelayProcess, running_directory
from tests.support.joined_replicas import join_replica
from tests.support.services import Service

NOWHERE = "http://127.0.0.1:1/pkarr"
"""Address without a listener."""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RelayProcess]:
    with running_directory(tmp_path / "directory.sqlite") as relay:
        yield relay


class StartAlone:
    """Starts daemons that share no host directory with others."""

    def __init__(self, make_daemon: MakeDaemon, folder: Path) -> None:
        self._make = make_daemon
        self._folder = folder

    def made(self, name: str, *urls: str) -> Daemon:
        hosts = str(self._folder / f"hosts-{name}")
        return self._make(name, FASTN_HOST_DIRECTORY=hosts, FASTN_DIRECTORIES=" ".join(urls))

    def __call__(self, name: str, *urls: str) -> Daemon:
        return self.made(name, *urls).start()


@pytest.fixture
def alone(make_daemon: MakeDaemon, tmp_path: Path) -> StartAlone:
    return StartAlone(make_daemon, tmp_path)


def call(daemon: Daemon, id52: str) -> subprocess.CompletedProcess[str]:
    return daemon.cli("call", id52, "Echo", "--data", '{"message": "hi"}', "--timeout", "20")


def publications(daemon: Daemon, name: str) -> dict[str, PublicationStatus]:
    identity = next(each for each in daemon.status().identities if each.name == name)
    return {each.place: each for each in identity.publications}


def is_published(daemon: Daemon, name: str, url: str) -> bool:
    found = publications(daemon, name).get(url)
    return found is not None and found.age_ms is not None and not found.problem


def published(daemon: Daemon, name: str, *urls: str) -> None:
    """Wait until the identity is published at each of these directories."""
    for url in urls:
        eventually(lambda url=url: is_published(daemon, name, url), f"{name} is published at {url}")  # type: ignore[misc]


def test_a_daemon_calls_another_by_id52(alone: StartAlone, directory: RelayProcess) -> None:
    one, two = alone("one", directory.url), alone("two", directory.url)
    bob, _ = two.identity("bob"), one.identity("alice")
    published(two, "bob", directory.url)
    answer = call(one, bob)
    assert "hi" in answer.stdout, answer.stderr
    shown = two.shown_status()
    assert directory.url in shown
    assert "published: this machine" in " ".join(shown.split())


def test_one_directory_of_several_suffices(alone: StartAlone, directory: RelayProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and never answers
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/pkarr"
        one = alone("one", NOWHERE, hanging, directory.url)
        two = alone("two", hanging, directory.url, NOWHERE)
        bob, _ = two.identity("bob"), one.identity("alice")
        published(two, "bob", directory.url)
        assert call(one, bob).returncode == 0
        eventually(lambda: NOWHERE in publications(two, "bob"), "the failure is shown")
        assert "refused" in publications(two, "bob")[NOWHERE].problem
        assert publications(two, "bob")[NOWHERE].age_ms is None


def test_a_directory_that_comes_later_gets_the_record(alone: StartAlone, directory: RelayProcess) -> None:
    directory.stop()
    one, two = alone("one", directory.url), alone("two", directory.url)
    bob, _ = two.identity("bob"), one.identity("alice")
    assert call(one, bob).returncode != 0
    explained = one.cli("explain", bob)
    assert directory.url in explained.stdout + explained.stderr
    directory.start()
    published(two, "bob", directory.url)
    assert eventually(lambda: call(one, bob).returncode == 0, "bob is found")


def test_directories_change_while_the_daemon_runs(alone: StartAlone, directory: RelayProcess) -> None:
    daemon = alone.made("one")
    del daemon.env["FASTN_DIRECTORIES"]
    daemon.start().identity("alice")
    assert daemon.cli("config", "set", "network.directories", directory.url).returncode == 0
    published(daemon, "alice", directory.url)
    assert daemon.cli("config", "set", "network.directories", "none").returncode == 0
    assert daemon.status().directories == []


def test_a_restarted_network_process_publishes_its_new_state(alone: StartAlone, directory: RelayProcess) -> None:
    one, two = alone("one", directory.url), alone("two", directory.url)
    bob, _ = two.identity("bob"), one.identity("alice")
    published(two, "bob", directory.url)
    two.wait_actor("network", two.kill_actor("network"))
    eventually(lambda: call(one, bob).returncode == 0, "bob is found again")


def test_an_unlisted_identity_is_not_published(alone: StartAlone, directory: RelayProcess) -> None:
    one, two = alone("one", directory.url), alone("two", directory.url)
    one.identity("alice")
    two.identity("bob")
    eve = two.cli("identity", "create", "eve", "--unlisted").stdout.strip()
    for arguments in (("identity", "online", "eve"), ("add-protocol", "eve", "--protocol", "Echo")):
        assert two.cli(*arguments).returncode == 0
    published(two, "bob", directory.url)
    assert set(publications(two, "eve")) == {"this machine"}
    assert "unlisted" in two.cli("identity", "list").stdout
    assert call(one, eve).returncode != 0
    assert two.cli("identity", "set", "eve", "--listed").returncode == 0
    published(two, "eve", directory.url)
    eventually(lambda: call(one, eve).returncode == 0, "eve is found")
    assert two.cli("identity", "set", "eve", "--unlisted").returncode == 0
    eventually(lambda: set(publications(two, "eve")) == {"this machine"}, "eve is withdrawn")
    three = alone("three", directory.url)
    three.identity("carol")
    assert call(three, eve).returncode != 0
    two.wait_actor("network", two.kill_actor("network"))
    published(two, "bob", directory.url)
    assert set(publications(two, "eve")) == {"this machine"}


def test_two_daemons_of_one_identity_keep_each_others_endpoints(alone: StartAlone, directory: RelayProcess) -> None:
    first, second = alone("first", directory.url), alone.made("second", directory.url)
    bob = first.identity("bob")
    published(first, "bob", directory.url)
    second.start()
    second.identity("carol")
    second.stop()
    copy_identity(first, second, "bob")
    second.start()
    published(second, "bob", directory.url)
    one = alone("one", directory.url)
    one.identity("alice")
    eventually(lambda: endpoints(one, bob) == 2, "both endpoints are in the directory")
    assert packets(first, "bob") + packets(second, "bob") < 8, "neither answers the packet of the other with its own"
    first.kill_actor("network")
    eventually(lambda: call(one, bob).returncode == 0, "bob is reached")  # a call over its connection may be lost


def packets(daemon: Daemon, name: str) -> int:
    """Number of packets that the vault has signed for an identity."""
    lines = [json.loads(line) for line in daemon.home.audit_log.read_text().splitlines()]
    return sum(each["event"] == "packet-signed" and each["identity"] == name for each in lines)


def test_a_replica_is_found_at_a_directory_without_its_owner(alone: StartAlone, directory: RelayProcess) -> None:
    owner, replica = alone("owner", directory.url), alone("replica", directory.url)
    alice = owner.identity("alice")
    published(owner, "alice", directory.url)
    join_replica(owner, replica)
    with replica.client() as client:
        client.control(AddProtocol("alice", "Echo", "default", ("everyone",)))
    published(replica, "alice", directory.url)
    one = alone("one", directory.url)
    one.identity("carol")
    eventually(lambda: endpoints(one, alice) == 2, "both endpoints are in the directory")
    owner.kill()
    pid = replica.kill_actor("network")
    replica.wait_actor("network", pid)
    published(replica, "alice", directory.url)  # the packet that the owner has signed last
    two = alone("two", directory.url)
    two.identity("dave")
    eventually(lambda: call(two, alice).returncode == 0, "alice is reached at the replica")
    assert packets(replica, "alice") == 0


def test_endpoints_are_kept_at_a_directory_that_answers_late(alone: StartAlone, directory: RelayProcess) -> None:
    """Later than a daemon waits for the lookup before it publishes."""
    late = Service(lambda connection: answer_late(connection, directory.url)).start()
    try:
        url = f"http://{late.address}/pkarr"
        first, second = alone("first", url), alone.made("second", url)
        bob = first.identity("bob")
        published(first, "bob", url)
        second.start()
        second.identity("carol")
        second.stop()
        copy_identity(first, second, "bob")
        first.kill()  # so it neither repairs nor withdraws anything
        second.start()
        published(second, "bob", url)
    finally:
        late.stop()
    one = alone("one", directory.url)
    one.identity("alice")
    eventually(lambda: endpoints(one, bob) == 2, "both endpoints are in the directory")


def answer_late(connection: socket.socket, url: str) -> None:
    """Pass requests on to the directory at ``url``, and its answers back a second later."""
    host, _, port = urlsplit(url).netloc.partition(":")
    with socket.create_connection((host, int(port))) as directory:
        answers = threading.Thread(target=pass_answers, args=(directory, connection), daemon=True)
        answers.start()
        while request := connection.recv(1 << 16):
            directory.sendall(request)
        directory.shutdown(socket.SHUT_RDWR)
        answers.join()


def pass_answers(directory: socket.socket, connection: socket.socket) -> None:
    with suppress(OSError):
        while answer := directory.recv(1 << 16):
            time.sleep(1.0)
            connection.sendall(answer)


def copy_identity(source: Daemon, target: Daemon, name: str) -> None:
    """Give an identity's key, but not the endpoint's, to another daemon."""
    for path in source.home.path.rglob(f"*{name}*"):
        copy = target.home.path / path.relative_to(source.home.path)
        if path.is_dir():
            shutil.copytree(path, copy, dirs_exist_ok=True)
        elif "vault" in path.parts:
            shutil.copy2(path, copy)


def endpoints(daemon: Daemon, id52: str) -> int:
    """Number of endpoints that the daemon finds for an identity."""
    daemon.cli("peer", "add", id52, "--name", "peer")
    call(daemon, id52)
    listed = json.loads(daemon.cli("peer", "list", "--json").stdout)
    return int(listed[0]["endpoints"])
