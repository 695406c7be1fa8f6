"""Programs on other machines that serve a binding over TLS: what they can do, and what they cannot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fastn_p2p_client import (
    ApplicationError,
    Client,
    Denied,
    InstanceNotFound,
    ProtocolNotFound,
    RemoteServer,
    Session,
    listen_remotely,
)
from fastn_p2p_client.errors import BindingNotFound, Forbidden, InvalidToken, NotForWorkers, TokenRefused, WrongDaemon
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer
from fastn_p2p_client.protocol import CallContext, Peer
from fastn_p2p_client.serving.registration_loop import DATA_MESSAGE
from fastn_p2p_client.serving.worker_connection import WorkerConnection
from fastn_p2p_client.worker_token import parse_token
from tests.support.ports import free_port
from tests.support.two_daemons import TwoDaemons, start_two_daemons


@dataclass
class Setup:
    """alice's daemon calls bob's, which listens for workers at ``address``."""

    daemons: TwoDaemons
    address: str

    def token(self, directory: Path, *arguments: str, instance: str = "default") -> Path:
        """Return a file with a new token of bob's Work."""
        done = self.daemons.two.cli("worker-token", "bob", "--protocol", "Work", "--instance", instance, *arguments)
        assert done.returncode == 0, done.stderr
        path = directory / f"{instance}.token"
        path.touch(0o600)
        path.write_text(done.stdout)
        return path


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    address = f"127.0.0.1:{free_port()}"
    with start_two_daemons(echo=False, listen=address) as daemons:
        for name in ("default", "revoked", "second"):
            add = ("add-protocol", "bob", "--protocol", "Work", "--instance", name, "--program", "--allow", "everyone")
            assert daemons.two.cli(*add).returncode == 0
        yield Setup(daemons, address)


@contextlib.asynccontextmanager
async def serving(server: RemoteServer) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker until it is registered, and end it at the end."""
    task = asyncio.ensure_future(server.serve())
    ready = asyncio.ensure_future(server.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED, timeout=60)
    ready.cancel()
    if task.done():
        task.result()
    assert server.ready.is_set()
    try:
        yield task
    finally:
        server.close()
        await asyncio.wait((task,), timeout=60)


def worker(setup: Setup, token: Path, name: str = "worker") -> RemoteServer:
    server = listen_remotely(setup.address, token)

    @server.handle_requests("Work", instance=parse_token(token.read_text()).instance)
    async def work(request: str, peer: Peer, call: CallContext) -> list[str]:
        if request == "refuse":
            raise ApplicationError("Busy", "not now")
        if request == "hang":
            await asyncio.Event().wait()
        return [name, request, peer.key.id52, call.command]

    @server.handle_streams("Work", instance=parse_token(token.read_text()).instance)
    async def echo(session: Session, word: str) -> None:
        await session.write(word.encode())
        async for chunk in session:
            await session.write(chunk)

    return server


async def test_calls_and_sessions_reach_a_worker_as_they_reach_a_program(setup: Setup, tmp_path: Path) -> None:
    async with serving(worker(setup, setup.token(tmp_path))), Client(setup.daemons.one.home) as client:
        target = ("alice", setup.daemons.bob, "Work")
        assert await client.call(*target, request="x") == ["worker", "x", setup.daemons.alice, ""]
        with pytest.raises(ApplicationError, match="not now"):
            await client.call(*target, request="refuse")
        assert len((await client.call(*target, request="y" * 5_000_000))[1]) == 5_000_000
        many = await asyncio.gather(*(client.call(*target, request=str(number)) for number in range(500)))
        assert [each[1] for each in many] == [str(number) for number in range(500)]
        async with await client.connect(*target, initial="hello") as session:
            assert await session.read() == b"hello"
            sent = bytes(range(256)) * 40_000

            async def send() -> None:
                for start in range(0, len(sent), 300_000):
                    await session.write(sent[start : start + 300_000])
                await session.send_eof()

            sending = asyncio.ensure_future(send())
            assert b"".join([chunk async for chunk in session]) == sent
            await sending


async def test_two_workers_share_calls_and_a_call_of_one_that_ends_goes_to_the_other(
    setup: Setup, tmp_path: Path
) -> None:
    token = setup.token(tmp_path, instance="second")
    one, two = worker(setup, token, "one"), worker(setup, token, "two")
    async with serving(one), Client(setup.daemons.one.home) as client:
        target = ("alice", setup.daemons.bob, "Work", "second")
        async with serving(two):
            hanging = [asyncio.ensure_future(client.call(*target, request="hang", timeout=60)) for _ in range(2)]
            found = await asyncio.gather(*(client.call(*target, request="x") for _ in range(100)))
            assert {each[0] for each in found} == {"one", "two"}
            for each in hanging:
                each.cancel()
            await asyncio.wait(hanging)
        assert (await client.call(*target, request="x", retry=True))[0] == "one"


async def test_workers_come_back_after_every_restart(setup: Setup, tmp_path: Path) -> None:
    async with serving(worker(setup, setup.token(tmp_path))) as task, Client(setup.daemons.one.home) as client:
        for actor in ("network", "gateway"):
            setup.daemons.two.kill_actor(actor)
            for _ in range(3):
                found = await client.call("alice", setup.daemons.bob, "Work", request="x", timeout=60, retry=True)
                assert found[0] == "worker"
        setup.daemons.two.stop()
        setup.daemons.two.start()
        found = await client.call("alice", setup.daemons.bob, "Work", request="x", timeout=60, retry=True)
        assert found[0] == "worker"
        assert not task.done()


async def test_a_revoked_token_ends_its_worker_and_serves_no_more(setup: Setup, tmp_path: Path) -> None:
    token = setup.token(tmp_path, instance="revoked")
    server = worker(setup, token)
    async with serving(server) as task:
        done = setup.daemons.two.cli("worker-token", "bob", "--protocol", "Work", "--instance", "revoked", "--revoke")
        assert "Revoked 1 token of Work (revoked) of bob." in done.stderr
        with pytest.raises(TokenRefused, match="does not accept the token for Work"):
            await asyncio.wait_for(task, 60)
    async with Client(setup.daemons.one.home) as client:
        with pytest.raises((InstanceNotFound, ProtocolNotFound)):
            await client.call("alice", setup.daemons.bob, "Work", "revoked", request="x", timeout=30)


async def test_the_access_list_is_the_owners(setup: Setup, tmp_path: Path) -> None:
    async with serving(worker(setup, setup.token(tmp_path))), Client(setup.daemons.one.home) as client:
        change = ("set-protocol", "bob", "--protocol", "Work", "--allow")
        assert setup.daemons.two.cli(*change, setup.daemons.bob).returncode == 0

        async def is_denied() -> bool:
            try:
                await client.call("alice", setup.daemons.bob, "Work", request="x", timeout=30)
            except Denied:
                return True
            return False

        async with asyncio.timeout(60):
            while not await is_denied():
                pass
            assert setup.daemons.two.cli(*change, "everyone").returncode == 0
            while await is_denied():
                pass


# ── what goes wrong ────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_made_only_for_bindings_of_programs(setup: Setup) -> None:
    with setup.daemons.two.client() as client:
        client.control(m.AddProtocol("bob", "Echo", "hosted"))
        with pytest.raises(NotForWorkers, match="the daemon serves it"):
            client.control(m.ChangeWorkerTokens("bob", "Echo", "hosted"))
        with pytest.raises(BindingNotFound):
            client.control(m.ChangeWorkerTokens("bob", "Work", "absent"))
    with setup.daemons.one.client() as client:
        client.control(m.AddProtocol("alice", "Work", "default", program=True))
        with pytest.raises(NotForWorkers, match=r"config set worker\.listen"):
            client.control(m.ChangeWorkerTokens("alice", "Work", "default"))


def test_tokens_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(InvalidToken, match="no such file"):
        listen_remotely("127.0.0.1:1", path)
    path.touch(0o600)
    for text in ("", "fastnworker1", "fastnworker1AAAA", "fastn1abc", "fastnworker1" + "A" * 3000, "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InvalidToken):
            listen_remotely("127.0.0.1:1", path)
    path.chmod(0o644)
    with pytest.raises(InvalidToken, match="chmod 600"):
        listen_remotely("127.0.0.1:1", path)


async def never(request: str) -> None:
    raise AssertionError(request)


async def test_another_daemon_at_the_address_gets_nothing(setup: Setup, tmp_path: Path) -> None:
    token = parse_token(setup.token(tmp_path).read_text())
    server = RemoteServer(setup.address, replace(token, fingerprint=bytes(32)))
    server.handle_requests("Work", never)
    with pytest.raises(WrongDaemon):
        await asyncio.wait_for(server.serve(), 60)


REFUSED = {
    "a call": m.Call("bob", "x" * 52, "Echo", "default", 1000),
    "a session": m.OpenSession("bob", "x" * 52, "Echo", "default", 1000, 65536),
    "the gateway's requests": m.GetMemory(b"x" * 16),
    "an identity": m.RegisterIdentity("bob", b"x" * 16),
    "another binding's end": m.UnregisterBinding("bob", "Work", "second"),
}


@pytest.mark.parametrize("registered", [False, True])
async def test_a_worker_may_send_nothing_but_answers(setup: Setup, tmp_path: Path, registered: bool) -> None:
    token = parse_token(setup.token(tmp_path).read_text())
    host, port = setup.address.rsplit(":", 1)
    channel = RequestChannel(
        Path(),
        "network",
        connection=lambda *arguments, **options: WorkerConnection(
            (host, int(port)), token.fingerprint, print, *arguments, **options
        ),
    )
    channel.open()

    async def answer(message: msgspec.Struct) -> object:
        response = await channel.request(message, timeout=30)
        return check_reply(decode_answer(DATA_MESSAGE, response.header), m.Ack, "the network process")

    try:
        if registered:
            await answer(m.RegisterBinding("bob", "Work", "default", ("peers",), token.secret))
        else:
            with pytest.raises(TokenRefused):
                await answer(m.RegisterBinding("bob", "Work", "default", ("peers",), b"x" * 16))
        for name, message in REFUSED.items():
            with pytest.raises(Forbidden):
                await answer(message)
            assert name
        with pytest.raises(TokenRefused):
            await answer(m.RegisterBinding("bob", "Work", "second", ("peers",), token.secret))
    finally:
        channel.close()


def test_what_speaks_no_tls_or_shows_no_token_is_disconnected(setup: Setup) -> None:
    network = setup.daemons.two.pid("network")
    host, port = setup.address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, int(port))) as plain:
        plain.settimeout(60)
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while plain.recv(4096):
                pass
    silent = [context.wrap_socket(socket.create_connection((host, int(port)))) for _ in range(70)]
    try:
        silent[0].settimeout(60)
        with contextlib.suppress(OSError):
            while silent[0].recv(4096):
                pass
    finally:
        for each in silent:
            each.close()
    assert setup.daemons.two.pid("network") == network, "the daemon goes on"
