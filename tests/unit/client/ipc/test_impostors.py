"""A socket where the daemon's should be, at which another user's process listens: nothing is ever sent there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p.cli import main
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_actors.runtime.curve.curve_connection import vault_channel
from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_actors.runtime.process_setup import die_with_parent
from fastn_p2p_client import Client, listen, sync
from fastn_p2p_client.errors import HomeUnusable
from fastn_p2p_client.home import Home, lock_exclusively
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.limits import PROTOCOL_VERSION
from tests.support.stub_daemon import eventually, short_path

NOBODY: Final = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Impostor:
    """A process of another user that listens at a path before the daemon does."""

    def __init__(self, path: Path) -> None:
        self.report, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        self.pid = os.fork()
        if self.pid == 0:
            self._listen(listener, theirs)
        listener.close()
        theirs.close()
        assert self.report.recv(1) == b"r"

    @staticmethod
    def _listen(listener: socket.socket, report: socket.socket) -> None:
        with suppress(BaseException):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            die_with_parent()
            listener.listen()  # now the kernel notes who listens
            report.send(b"r")
            while True:
                accepted, _ = listener.accept()
                report.send(b"c")
                accepted.settimeout(60)
                with accepted, suppress(OSError):
                    report.send(b"DATA" if accepted.recv(100) else b"")
                    while accepted.recv(1000):
                        pass
        os._exit(0)

    def heard(self) -> str:
        """``c`` for each connection, ``DATA`` for each that has sent anything."""
        eventually(self._has_news)
        heard = b""
        self.end()
        while data := self.report.recv(1000):
            heard += data
        self.report.close()
        return heard.decode()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _has_news(self) -> bool:
        try:
            return bool(self.report.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Home for which a daemon seems to run."""
    with short_path() as path:
        path.chmod(0o700)
        home = Home(path)
        (path / "run").mkdir(mode=0o700)
        monkeypatch.setenv("FASTN_HOME", str(path))
        with home.lock.open("w") as lock:
            lock_exclusively(lock.fileno())
            yield home


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(HomeUnusable, match=f"a process of uid {NOBODY} listens there, and this is uid 0"):
        yield


def check_async(home: Home) -> None:
    async def converse() -> None:
        async with Client(home) as client:
            with refused():
                await client.control(m.GetStatus())
            with refused():
                await client.call(None, "bob", "Echo", request={"secret": "x"})

    asyncio.run(converse())


def check_blocking(home: Home) -> None:
    with sync.Client(home) as client, refused():
        client.call(None, "bob", "Echo", request={"secret": "x"})


def check_command(home: Home) -> None:
    assert main(["list-identities"]) == ExitCode.STORAGE


def check_server(home: Home) -> None:
    def echo(request: str) -> str:
        return request

    async def serve() -> None:
        server = listen("alice", home)
        server.handle_requests("Echo", echo)
        await server.serve()

    with refused():
        asyncio.run(serve())


@pytest.mark.parametrize("check", [check_async, check_blocking, check_command, check_server])
def test_at_the_control_socket(home: Home, check: Callable[[Home], None]) -> None:
    impostor = Impostor(home.control_socket)
    check(home)
    assert set(impostor.heard()) == {"c"}


async def test_at_the_data_plane(home: Home) -> None:
    """The gateway is ours, and where the network's socket should be is another user's."""
    impostor = Impostor(home.mailbox("network"))

    def welcome(sender: Sender, correlation: bytes, _header: bytes, _payload: bytes) -> None:
        route = str(home.mailbox("network"))
        gateway.send(sender, correlation, m.encode(m.Welcome(PROTOCOL_VERSION, "1", route, 1000, 10)))

    gateway = Mailbox(home.control_socket, welcome)
    gateway.open()
    try:
        async with Client(home) as client:
            with refused():
                await client.call(None, "bob", "Echo", request={"secret": "x"})
    finally:
        gateway.close()
    assert set(impostor.heard()) == {"c"}


async def test_at_a_mailbox_with_keys(home: Home) -> None:
    impostor = Impostor(home.mailbox("vault"))

    link = vault_channel(home.mailbox("vault"), generate_vault_keys().network)
    link.open()
    try:
        with refused():
            await link.request(m.GetStatus(), timeout=0.5)
    finally:
        link.close()
    assert set(impostor.heard()) == {"c"}


def test_in_a_directory_that_another_user_has_made(home: Home) -> None:
    """A socket directory in ``/tmp`` that another user made first is rejected without any connection."""
    squatted = home.path / "squatted"
    (squatted / "sockets" / "run").mkdir(parents=True)
    impostor = Impostor(squatted / "sockets" / "control.sock")
    for directory in (squatted / "sockets" / "run", squatted / "sockets", squatted):
        os.chown(directory, NOBODY, NOBODY)
    home.socket_directory_file.write_text(f"{squatted / 'sockets'}\n")
    with sync.Client(home) as client, pytest.raises(HomeUnusable, match=f"belongs to uid {NOBODY}"):
        client.control(m.GetStatus())
    impostor.end()
    impostor.report.close()
