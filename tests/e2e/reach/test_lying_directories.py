"""Directories that fail, lie or never end: peers are found in an honest one beside them, and errors say why."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final
from urllib.request import urlopen

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_actors.credentials.pkarr import encode_key
from fastn_p2p_client import PublicKey
from tests.e2e.reach.test_directories import is_published, publications
from tests.support.daemons import Daemon, eventually
from tests.support.directories import RelayProcess, running_directory
from tests.support.processes import resident
from tests.support.services import Service
from tests.support.signer import Signer

_HUGE: Final = 100_000_000
"""Bytes of the largest answer."""
_MOST_GROWTH: Final = 32 << 20
"""Bytes by which a network process may grow while it is told lies."""

Lie = Callable[["LyingDirectory", socket.socket], object]


def _answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def _huge(_directory: LyingDirectory, connection: socket.socket) -> None:
    connection.sendall(f"HTTP/1.1 200 x\r\nContent-Length: {_HUGE}\r\n\r\n".encode())
    for _ in range(_HUGE >> 16):
        connection.sendall(bytes(1 << 16))


def _drops(_directory: LyingDirectory, connection: socket.socket) -> None:
    """A byte now and then, of an answer that has no end."""
    connection.sendall(b"HTTP/1.1 200 x\r\nX: ")
    while True:
        connection.sendall(b"y")
        time.sleep(0.1)


LIES: Final[dict[str, Lie]] = {
    "status 500": lambda _, connection: connection.sendall(_answer(500, b"we are sorry")),
    "garbage": lambda _, connection: connection.sendall(_answer(200, b"garbage" * 30)),
    "another protocol": lambda _, connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 3),
    "100 MB": _huge,
    "a byte now and then": _drops,
    "no answer": lambda _, connection: connection.recv(1),
    "a redirect to itself": lambda self, connection: connection.sendall(_answer(302, b"", f"Location: {self.url}")),
    "the packet of another key": lambda _, connection: connection.sendall(
        _answer(200, Signer("mallory").packet(b"record", 1))
    ),
    "an old packet": lambda self, connection: connection.sendall(_answer(200, self.old)),
}
ERRORS: Final = {
    "status 500": "status 500: we are sorry",
    "100 MB": "more than",
    "a byte now and then": "no answer within",
    "no answer": "no answer within",
    "a redirect to itself": "which is not followed",
}
"""Words of the reason that the caller is given."""


class LyingDirectory:
    """A directory.

    Attributes:
        lie: how it answers each request.
        old: a packet that it keeps for ever.
    """

    def __init__(self) -> None:
        self.lie: Lie = LIES["status 500"]
        self.old: bytes = b""
        self._service = Service(self._serve).start()
        self.url: str = f"http://{self._service.address}/pkarr"

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        while chunk := connection.recv(1 << 16):
            data += chunk
            head, separator, body = data.partition(b"\r\n\r\n")
            lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
            if separator and len(body) >= int((lengths or [b"0"])[0]):
                data = b""
                self.lie(self, connection)

    def stop(self) -> None:
        self._service.stop()


@dataclass
class Daemons:
    """alice's daemon and bob's, which use a lying directory and an honest one, and dave's, which uses the lying one.

    Attributes:
        honest: the honest one.
    """

    alice: Daemon
    bob: Daemon
    dave: Daemon
    lying: LyingDirectory
    honest: RelayProcess

    def publish(self, name: str) -> str:
        """Return the ID52 of a new identity of bob's daemon, which is in the honest directory."""
        id52 = self.bob.identity(name)
        eventually(lambda: is_published(self.bob, name, self.honest.url), f"{name} is in the honest directory")
        return id52


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    folder = tmp_path_factory.mktemp("lies")
    with ExitStack() as stack:
        honest = stack.enter_context(running_directory(folder / "directory.sqlite"))
        lying = LyingDirectory()
        stack.callback(lying.stop)
        made = {}
        for name, urls in {
            "alice": (lying.url, honest.url),
            "bob": (lying.url, honest.url),
            "dave": (lying.url,),
        }.items():
            daemon = Daemon(folder / name, folder / f"hosts-{name}", FASTN_DIRECTORIES=" ".join(urls))
            stack.callback(daemon.clean_up)
            daemon.launch()
            made[name] = daemon
        for name, daemon in made.items():
            assert daemon.wait_ready(), daemon.report()
            daemon.identity(name)
        yield Daemons(**made, lying=lying, honest=honest)


def _call(daemon: Daemon, id52: str) -> subprocess.CompletedProcess[str]:
    return daemon.cli("call", id52, "Echo", "--data", '{"message": "hi"}')


def _packet_of(daemons: Daemons, id52: str) -> bytes:
    with urlopen(f"{daemons.honest.url}/{encode_key(bytes(PublicKey(id52)))}") as response:
        body: bytes = response.read()
    return body


@pytest.mark.parametrize("lie", LIES)
def test_a_peer_is_found_in_an_honest_directory_beside_it(daemons: Daemons, lie: str) -> None:
    name = f"bob-{list(LIES).index(lie)}"
    daemons.lying.lie = LIES["status 500"]
    id52 = daemons.publish(name)
    daemons.lying.old = _packet_of(daemons, id52)
    daemons.lying.lie = LIES[lie]
    sizes = [resident(each.pid("network")) for each in (daemons.alice, daemons.bob)]
    assert daemons.bob.cli("identity-offline", name).returncode == 0
    assert daemons.bob.cli("identity-online", name).returncode == 0
    eventually(lambda: is_published(daemons.bob, name, daemons.honest.url), f"{name} is published again")
    called = _call(daemons.alice, id52)
    assert called.returncode == 0, f"{called.stderr}\n{daemons.alice.cli('explain', id52).stdout}"
    for daemon, before in zip((daemons.alice, daemons.bob), sizes, strict=True):
        assert resident(daemon.pid("network")) - before < _MOST_GROWTH


@pytest.mark.parametrize("lie", ERRORS)
def test_without_another_one_the_error_says_why(daemons: Daemons, lie: str) -> None:
    """The lie is told about a key that no daemon has asked for before."""
    daemons.lying.lie = LIES[lie]
    stranger = Signer(lie).key.id52
    called = _call(daemons.dave, stranger)
    assert called.returncode == ExitCode.PEER, called.stderr
    assert daemons.lying.url in called.stderr
    assert ERRORS[lie].lower() in called.stderr.lower()
    explained = daemons.dave.cli("explain", stranger)
    assert explained.returncode == ExitCode.PEER
    assert "fastn-p2p netcheck" in explained.stdout
    checked = daemons.dave.cli("netcheck", timeout=100)
    assert checked.returncode == ExitCode.APPLICATION
    assert f"problem  directory {daemons.lying.url}" in checked.stdout


def test_the_owner_is_told_where_an_identity_is_not_published(daemons: Daemons) -> None:
    daemons.lying.lie = LIES["status 500"]
    daemons.publish("carol")

    def problem() -> str:
        found = publications(daemons.bob, "carol").get(daemons.lying.url)
        return found.problem if found is not None else ""

    assert "status 500: we are sorry" in eventually(problem, "the status has the failure")
    with suppress(ValueError):
        assert daemons.bob.shown_status().index(daemons.lying.url)
