"""Socket of the vault's owner: who may use it, descriptors, and packets that are no request."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.vault.messages import CreateKey, GetLockState, SignDelegation
from fastn_p2p_actors.vault.owner_messages import (
    MAX_PACKET,
    GetVaultStatus,
    LockVault,
    OwnerReply,
    OwnerRequest,
    SetPassphrase,
    UnlockVault,
    VaultStatus,
)
from fastn_p2p_actors.vault.owner_socket import MAX_CONNECTIONS, OwnerSocket
from fastn_p2p_client.errors import Forbidden, VaultLocked
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, encode
from tests.support.locked_vaults import delivered
from tests.support.vault_process import RunningVault, regions, running_vault, scan, vault_requests

_reply: msgspec.msgpack.Decoder[VaultStatus | Ack | ErrorReply] = msgspec.msgpack.Decoder(
    VaultStatus | Ack | ErrorReply
)
DEADLINE = 60


def send(path: Path, packet: bytes, *descriptors: int) -> VaultStatus | Ack | ErrorReply | None:
    """Return the reply to one packet; None if the connection ends without one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        try:
            socket.send_fds(connection, [packet], descriptors)
            reply = connection.recv(MAX_PACKET)
        except ConnectionError:
            return None
    return _reply.decode(reply) if reply else None


@contextmanager
def served(folder: Path, ancestors: frozenset[int] = frozenset()) -> Iterator[tuple[Path, list[OwnerRequest]]]:
    """A socket in this event loop that answers every request with ``Ack``."""
    requests: list[OwnerRequest] = []

    async def on_request(request: OwnerRequest, descriptors: list[int]) -> OwnerReply:
        requests.append(request)
        return Ack()

    owner = OwnerSocket(folder / "keys.sock", on_request, ancestors)
    owner.open()
    try:
        yield folder / "keys.sock", requests
    finally:
        owner.close()


async def test_processes_of_the_daemon_are_refused_and_others_served(tmp_path: Path) -> None:
    with served(tmp_path) as (path, requests):
        assert await asyncio.to_thread(send, path, encode(GetVaultStatus())) == Ack()
        assert path.stat().st_mode & 0o777 == 0o600
    for ancestor in (os.getpid(), os.getppid()):
        with served(tmp_path, frozenset({ancestor})) as (path, requests):
            reply = await asyncio.to_thread(send, path, encode(LockVault()))
            assert isinstance(reply, ErrorReply)
            assert isinstance(reply.error(), Forbidden)
            assert requests == []


@pytest.mark.parametrize(
    "packet",
    [b"\xc1", b"x" * (MAX_PACKET + 1), encode(Ack()), encode(CreateKey("mallory")), encode(SignDelegation("a"))],
)
async def test_packets_that_are_no_request_are_refused_and_their_descriptors_closed(
    tmp_path: Path, packet: bytes
) -> None:
    reader, writer = os.pipe()
    with served(tmp_path) as (path, requests), open(reader, "rb") as end, open(writer, "wb") as sent:  # noqa: ASYNC230, PTH123
        reply = await asyncio.to_thread(send, path, packet, writer)
        assert reply is None or isinstance(reply, ErrorReply)
        assert await asyncio.to_thread(send, path, encode(GetVaultStatus()), writer, writer) == Ack()
        assert await asyncio.to_thread(send, path, encode(GetVaultStatus()), *[writer] * 8) is None
        assert requests == [GetVaultStatus()]
        sent.close()
        async with asyncio.timeout(DEADLINE):
            assert await asyncio.to_thread(end.read) == b"", "a copy of the descriptor is still open"


async def test_connections_that_send_nothing_are_limited(tmp_path: Path) -> None:
    with served(tmp_path) as (path, _):
        silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(MAX_CONNECTIONS)]
        try:
            for each in silent:
                await asyncio.to_thread(each.connect, str(path))
            reply = await asyncio.to_thread(send, path, encode(GetVaultStatus()))
            assert isinstance(reply, ErrorReply)
            assert reply.code == "overloaded"
        finally:
            for each in silent:
                each.close()
        for _ in range(1000):  # the server notices that they are gone
            if await asyncio.to_thread(send, path, encode(GetVaultStatus())) == Ack():
                return
        pytest.fail("the connections still count")


# ── the vault's process ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[RunningVault]:
    with running_vault(tmp_path / "home") as running:
        yield running


def owner(vault: RunningVault, request: OwnerRequest, *passphrases: bytes) -> VaultStatus:
    with delivered(passphrases[0] if passphrases else b"") as first, delivered(b"".join(passphrases[1:])) as second:
        reply = send(vault.home.mailbox("keys"), encode(request), *[first, second][: len(passphrases)])
    if isinstance(reply, ErrorReply):
        raise reply.error()
    assert isinstance(reply, VaultStatus)
    return reply


async def test_owner_sets_a_passphrase_locks_and_unlocks(vault: RunningVault) -> None:
    async with vault_requests(vault, "gateway") as gateway, vault_requests(vault, "network") as network:
        await gateway(CreateKey("alice"))
        status = await asyncio.to_thread(owner, vault, SetPassphrase(), b"correct horse")
        assert (status.encrypted, status.locked, [slot.kind for slot in status.slots]) == (True, False, ["passphrase"])
        signed = await network(SignDelegation("alice"))
        assert (await asyncio.to_thread(owner, vault, LockVault())).locked
        assert (await gateway(GetLockState())).locked
        with pytest.raises(VaultLocked):
            await gateway(CreateKey("bob"))
        assert await network(SignDelegation("alice")) == signed
        reply = await asyncio.to_thread(owner, vault, UnlockVault(3600), b"correct horse\n")
        assert not reply.locked
        assert reply.until > 0
        await gateway(CreateKey("bob"))


async def test_secrets_are_in_no_memory_of_the_vault_that_others_can_read(vault: RunningVault, tmp_path: Path) -> None:
    """In each state, the vault's memory is searched for the passphrase, the seeds, and the transport key."""

    async def use(name: str) -> None:
        async with vault_requests(vault, "gateway") as gateway, vault_requests(vault, "network") as network:
            if name == "create":
                await gateway(CreateKey("alice"))
            await network(SignDelegation("alice"))

    await use("create")
    passphrase = b"battery staple " + os.urandom(8).hex().encode()
    seeds = {path.stem: path.read_bytes()[-32:] for path in tmp_path.rglob("*.key")}
    needles = {**seeds, "passphrase": passphrase}
    owner(vault, SetPassphrase(), passphrase + b"\n")
    try:
        await use("use")
        unlocked = scan(vault.pid, needles)
        guarded = any(region.guarded for region in regions(vault.pid))
    except PermissionError:
        pytest.skip("only root may look into the vault's memory")
    assert guarded
    assert unlocked["passphrase"] == []
    assert all(region.guarded for places in unlocked.values() for region in places)
    owner(vault, LockVault())
    locked = scan(vault.pid, needles)
    assert (locked["alice"], locked["passphrase"]) == ([], [])
    owner(vault, UnlockVault(), passphrase)
    await use("use")
    again = scan(vault.pid, needles)
    assert again["passphrase"] == []
    assert all(region.guarded for places in again.values() for region in places)
