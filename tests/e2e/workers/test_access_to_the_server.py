"""Access to the NATS server of workers, and its messages: credentials, TLS, rights, limits, hostile messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats as nats_py
import nkeys  # type: ignore[import-untyped]
import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.nats_client.nats_connection import connect
from fastn_p2p_client.nats_client.nats_server import NatsServer
from fastn_p2p_client.workers import NatsUnusable, serve_workers
from fastn_p2p_client.workers.messages import Subjects, WorkerReady
from tests.e2e.workers.conftest import add_work
from tests.support.certificates import make_certificate
from tests.support.daemons import DEADLINE
from tests.support.nats_servers import NatsProcess, nats_server
from tests.support.two_daemons import TwoDaemons, until_awaited
from tests.support.worker_programs import PROTOCOL, WorkerProcess

Start = Callable[..., WorkerProcess]
PAGE = Path(__file__).parents[3] / "docs" / "workers.md"
SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
"""nkey of the user who may do anything."""


def rights(instance: str) -> str:
    """The accounts that the page shows, and one that may do anything."""
    (block,) = re.findall(r"```\n(authorization \{.*?\n\})\n```", PAGE.read_text(), re.DOTALL)
    pair: Any = nkeys.from_seed(bytearray(SEED))
    key = pair.public_key.decode()
    block = block.replace(".default.", f".{instance}.").replace('"..."', '"secret"')
    return str(block.replace("users = [", f"users = [\n    {{ nkey: {key} }}", 1))


@pytest.fixture(scope="module")
def secured(daemons: TwoDaemons, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    """A server with TLS and the accounts of the page; bob's Work ``secured`` uses it."""
    directory = Path(os.path.realpath(tmp_path_factory.mktemp("nats")))
    certificate, key = make_certificate(directory, "localhost")
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    with nats_server(directory, f"{tls}\n{rights('secured')}") as server:
        secret(directory / "bridge.toml", 'user = "bridge"\npassword = "secret"')
        secret(directory / "worker.toml", 'user = "worker"\npassword = "secret"')
        secret(directory / "wrong.toml", 'user = "worker"\npassword = "guess"')
        secret(directory / "all.nk", SEED.decode())
        server.url = f"tls://localhost:{server.port}"
        with daemons.two.client() as owner:
            bridge = str(directory / "bridge.toml")
            add_work(owner, server.url, "secured", credentials=bridge, ca=str(certificate))
        yield server


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return path


def ca_of(server: NatsProcess) -> str:
    return str(server.directory / "certificate.pem")


def test_the_owner_sees_a_path_and_no_secret(daemons: TwoDaemons, secured: NatsProcess) -> None:
    granted = daemons.two.cli("access").stdout
    assert f"read {secured.directory / 'bridge.toml'}" in granted
    assert "secret" not in granted + daemons.two.shown_status("--json")


async def test_accounts_with_the_rights_of_the_page_are_enough_and_may_do_no_more(
    daemons: TwoDaemons, client: Client, secured: NatsProcess, start: Start
) -> None:
    directory, ca = secured.directory, ca_of(secured)
    start(secured.url, instance="secured", credentials=str(directory / "worker.toml"), ca=ca).ready()
    reply = await client.call("alice", daemons.bob, PROTOCOL, "secured", request={"data": b"x"}, timeout=DEADLINE)
    assert reply["data"] == b"x"
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    server = NatsServer(secured.url, str(directory / "worker.toml"), ca)
    account = await connect(server, "tests", on_error=on_error)
    own = Subjects.of("bob", PROTOCOL, "secured")
    for subject in (
        own.all_bridges,
        own.bridge("*", "*"),
        own.base + ".>",
        ">",
        Subjects.of("bob", "Other").all_workers,
    ):
        await account.subscribe(subject)
    for subject in (own.all_workers, own.worker("x"), Subjects.of("bob", "Other").all_bridges, "else"):
        await account.publish(subject, b"x")
    await account.flush()

    async def all_refused() -> bool:
        return len(refused) >= 9

    await until_awaited(all_refused, "each of them is refused")
    await account.close()


async def test_what_is_wrong_is_said_with_what_to_do(secured: NatsProcess) -> None:
    directory, ca = secured.directory, ca_of(secured)

    async def problem(url: str, credentials: Path | None = None, ca: str = "") -> str:
        worker = serve_workers(url, "bob", PROTOCOL, len_of, credentials=credentials or "", ca=ca)
        with pytest.raises(NatsUnusable) as caught:
            await asyncio.wait_for(worker.serve(), DEADLINE)
        return str(caught.value)

    assert "refuses the credentials in" in await problem(secured.url, directory / "wrong.toml", ca)
    assert "refuses a connection without credentials" in await problem(secured.url, None, ca)
    assert "Give the file of its CA" in await problem(secured.url, directory / "worker.toml")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "Start it, or check the URL" in await problem(f"nats://127.0.0.1:{closed.getsockname()[1]}")


def len_of(request: str) -> int:
    return len(request)


async def test_an_nkey_is_accepted_and_a_server_without_tls_gets_no_credentials(
    secured: NatsProcess, nats: NatsProcess
) -> None:
    key = str(secured.directory / "all.nk")
    await (await connect(NatsServer(secured.url, key, ca_of(secured)), "tests")).close()
    with pytest.raises(NatsUnusable, match="offers no TLS"):
        await connect(NatsServer(nats.url.replace("nats:", "tls:"), key), "tests")


async def test_a_token_is_accepted(tmp_path: Path) -> None:
    with nats_server(tmp_path / "token", 'authorization { token: "secret" }') as server:
        path = str(secret(tmp_path / "token.toml", 'token = "secret"'))
        await (await connect(NatsServer(server.url, path), "tests")).close()


async def test_payloads_pass_a_server_with_the_smallest_messages(
    daemons: TwoDaemons, client: Client, start: Start, tmp_path: Path
) -> None:
    with nats_server(tmp_path / "small", "max_payload: 8192") as server:
        with daemons.two.client() as owner:
            add_work(owner, server.url, "small")
        start(server.url, instance="small").ready()
        data = bytes(range(256)) * 1000
        reply = await client.call("alice", daemons.bob, PROTOCOL, "small", request={"data": data}, timeout=DEADLINE)
        assert reply["data"] == data[::-1]


async def test_hostile_messages_are_ignored_with_one_line(
    bound: TwoDaemons, client: Client, nats: NatsProcess, start: Start
) -> None:
    """They come from an account that may use all subjects of the binding."""
    start().ready()
    await client.call("alice", bound.bob, PROTOCOL, request={})
    own = Subjects.of("bob", PROTOCOL)
    heard: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        account = await nats_py.connect(nats.url)
        stack.push_async_callback(account.close)

        async def listen(message: object) -> None:
            subject: str = message.subject  # type: ignore[attr-defined]
            heard.update({part: subject for part in ("bridge", "worker") if f".{part}." in subject})

        await account.subscribe(f"{own.base}.>", cb=listen)
        await account.flush()  # the server knows of it

        async def both() -> bool:
            await client.call("alice", bound.bob, PROTOCOL, request={})
            return len(heard) == 2

        await until_awaited(both, "the subjects of both")
        encode = msgspec.msgpack.encode
        hostile = [
            b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, encode({"a": 1}), encode([[1, 2]]),
            encode([WorkerReady("x" * 100, "\x1b[31m" * 100, -1)]), encode([[163, b"", "x", b"", b"", b"", 1 << 60]]),
            encode([[163, b"i" * 16, "0" * 16, b"k", b"no header", b"", 0]]), encode([[169, b"i" * 16, b"x" * 1000]]),
            encode([[164, [b"x" * 16] * 1000]]), encode([[168, b"x" * 16, b"", b"", 1 << 60]]),
        ]  # fmt: skip
        for subject in (*heard.values(), own.all_bridges, own.all_workers):
            for each in hostile:
                await account.publish(subject, each)
        for number in range(100):
            await account.publish(own.all_bridges, encode([WorkerReady(f"{number:016x}", "x", 0)]))
        await account.flush()
    for _ in range(4):  # one that is given to a worker which does not exist ends, and is made again
        await client.call("alice", bound.bob, PROTOCOL, request={}, retry=True, timeout=DEADLINE)
    log = (bound.two.home.logs / "identity-bob.log").read_text()
    assert log.count("that are none are ignored") == 1
    assert "\x1b" not in log
