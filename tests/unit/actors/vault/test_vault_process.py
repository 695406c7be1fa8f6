"""The vault as a process: accepted senders, where secrets are, and garbage."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.credentials import verify_delegation, verify_record
from fastn_p2p_actors.credentials.key_transfer import KeyReceiver
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.messages import (
    CreateKey,
    DeleteKey,
    GetTransport,
    ListKeys,
    SignDelegation,
    SignRecord,
    VaultReply,
)
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, Forbidden, P2PError
from fastn_p2p_client.ipc.messages import Cancel, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from tests.support.vault_process import RunningVault, VaultRequests, regions, running_vault, scan, vault_requests

NAMES = [f"id{number}" for number in range(10)]


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[RunningVault]:
    with running_vault(tmp_path / "home") as running:
        yield running


def seeds(folder: Path) -> dict[str, bytes]:
    """Return every secret on disk by the name of its file."""
    return {path.stem: path.read_bytes()[HEADER_BYTES:] for path in folder.rglob("*.key")}


def written(seed: bytes) -> dict[str, bytes]:
    """Return the encodings of a secret that a search must find."""
    digest = hashlib.sha512(seed).digest()
    return {
        "raw": seed,
        "first half": seed[:16],
        "second half": seed[16:],
        "words as SHA-512 loads them": b"".join(seed[at : at + 8][::-1] for at in range(0, 32, 8)),
        "hexadecimal": seed.hex().encode(),
        "upper-case hexadecimal": seed.hex().upper().encode(),
        "base64": base64.b64encode(seed)[:42],
        "base64, URL-safe": base64.urlsafe_b64encode(seed)[:42],
        "base32hex": base64.b32hexencode(seed)[:51].lower(),
        "scalar": digest[1:31],
        "nonce key": digest[32:],
    }


async def test_known_keys_get_their_role_and_others_are_rejected(vault: RunningVault) -> None:
    async with vault_requests(vault, "gateway") as gateway, vault_requests(vault, "network") as network:
        alice = await gateway(CreateKey("alice"))
        transport = await network(GetTransport())
        signed = await network(SignDelegation("alice"))
        delegation = verify_delegation(signed.blob, now=signed.not_after - 1, endpoint=transport.public)
        assert delegation.identity == alice.public
        record = await network(SignRecord("alice", (), ("192.0.2.1:1",)))
        assert verify_record(record.blob, now=record.expires - 1).endpoints[0].addresses == ("192.0.2.1:1",)
        with pytest.raises(Forbidden):
            await gateway(GetTransport())
        with pytest.raises(Forbidden):
            await network(DeleteKey("alice"))
        stranger = RequestChannel(vault.home.mailbox("vault"), "vault")
        stranger.open()
        with pytest.raises(DaemonBusy):
            await stranger.request(ListKeys(), timeout=0.3)
        stranger.close()
        assert len((await gateway(ListKeys())).identities) == 1


async def test_identity_secrets_are_nowhere_but_in_locked_memory_and_in_their_files(
    vault: RunningVault, tmp_path: Path
) -> None:
    """With ten identities in use, the vault's memory and every file of the home are searched for their secrets."""

    async def use() -> None:
        async with vault_requests(vault, "gateway") as gateway, vault_requests(vault, "network") as network:
            for name in NAMES:
                await gateway(CreateKey(name))
            await gateway(ListKeys())
            for name in NAMES:
                await network(SignDelegation(name))
                await network(SignRecord(name, (), ("192.0.2.1:1",)))
            receiver = KeyReceiver()
            given = await network(GetTransport(receiver.public))
            assert receiver.open(given.secret) == seeds(tmp_path)["transport"]

    async def finish() -> None:
        async with vault_requests(vault, "gateway") as gateway:
            for name in NAMES:
                await gateway(DeleteKey(name))

    await use()
    at_rest = seeds(tmp_path)
    assert sorted(at_rest) == [*NAMES, "transport"]
    needles = {f"{name}: {form}": text for name, seed in at_rest.items() for form, text in written(seed).items()}

    try:
        hits = scan(vault.pid, needles)
        guarded = [region for region in regions(vault.pid) if region.guarded]
    except PermissionError:
        pytest.skip("only root may look into the vault's memory")
    assert guarded
    for needle, places in hits.items():
        form = needle.partition(": ")[2]
        assert len(places) == (1 if form in ("raw", "first half", "second half") else 0), needle
        assert all(place.guarded for place in places), needle

    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = {needle.partition(": ")[0] for needle, text in needles.items() if text in content}
            assert found == ({path.stem} if path.suffix == ".key" else set()), path

    await finish()
    left = {needle for needle, places in scan(vault.pid, needles).items() if places}
    assert left == {f"transport: {form}" for form in ("raw", "first half", "second half")}


async def test_vault_that_was_restarted_reads_secrets_into_locked_memory_alone(tmp_path: Path) -> None:
    async def create(vault: RunningVault) -> None:
        async with vault_requests(vault, "gateway") as gateway:
            for name in NAMES:
                await gateway(CreateKey(name))

    async def use(vault: RunningVault) -> None:
        async with vault_requests(vault, "network") as network:
            for name in NAMES:
                await network(SignDelegation(name))

    with running_vault(tmp_path / "home") as first:
        await create(first)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(60) == 0
    with running_vault(tmp_path / "home") as second:
        needles = seeds(tmp_path)
        try:
            unused = scan(second.pid, needles)
            await use(second)
            used = scan(second.pid, needles)
        except PermissionError:
            pytest.skip("only root may look into the vault's memory")
        assert {name for name, places in unused.items() if places} == {"transport"}
        for places in used.values():
            assert [place.guarded for place in places] == [True]


def test_others_of_the_same_user_are_kept_out_of_its_memory(vault: RunningVault) -> None:
    assert not vault.dumpable
    assert vault.core_limits == (0, 0)
    assert Path(f"/proc/{vault.pid}/mem").stat().st_uid == 0


async def test_garbage_from_every_role_and_from_strangers_changes_nothing(vault: RunningVault) -> None:
    random_ = random.Random(1)
    replies: msgspec.msgpack.Decoder[VaultReply] = msgspec.msgpack.Decoder(VaultReply)
    valid = [
        encode(message)
        for message in (
            ListKeys("x"),
            GetTransport(),
            SignDelegation("alice"),
            SignRecord("alice", ("https://relay.example/",), ("192.0.2.1:1",)),
            DeleteKey("nobody"),
            Cancel(),
        )
    ]

    def garbage() -> bytes:
        kind = random_.randrange(3)
        if kind == 0:
            return random_.randbytes(random_.randrange(200))
        message = bytearray(random_.choice(valid))
        if kind == 1:
            message[random_.randrange(len(message))] ^= 1 << random_.randrange(8)
        else:
            del message[random_.randrange(len(message)) :]
        return bytes(message)

    async def throw(link: RequestChannel, times: int) -> None:
        for _ in range(times // 50):
            asked = [
                asyncio.ensure_future(link.request_encoded(garbage(), random_.randbytes(20), 20)) for _ in range(50)
            ]
            last = await link.request(ListKeys(), timeout=60)
            assert replies.decode(last.header)
            await asyncio.sleep(0)  # those that are answered take note
            for answer in asked:
                if answer.done():
                    assert replies.decode(answer.result().header)
                else:
                    answer.cancel()  # it was taken for a Cancel

    def strangers() -> None:
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(60)
                try:
                    stranger.connect(str(vault.home.mailbox("vault")))
                    stranger.sendall(random_.randbytes(300))
                except OSError:
                    continue

    async with vault_requests(vault, "gateway") as gateway, vault_requests(vault, "network") as network:
        alice = await gateway(CreateKey("alice"))
        for link in (gateway.link, network.link):
            await throw(link, 1000)
        strangers()
        before = vault.resident
        for link in (gateway.link, network.link):
            await throw(link, 2000)
        strangers()
        assert vault.resident < before + 2 * 1024 * 1024
        listed = await gateway(ListKeys())
        assert alice in listed.identities


async def test_stopping_answers_what_has_arrived_and_ends_in_order(vault: RunningVault) -> None:
    async def ask_forever(gateway: VaultRequests) -> None:
        while True:
            assert len((await gateway(ListKeys(), timeout=60)).identities) == 1

    async with vault_requests(vault, "gateway") as gateway:
        await gateway(CreateKey("alice"))
        vault.process.send_signal(signal.SIGTERM)
        with pytest.raises((ConnectionLost, DaemonBusy)):
            await ask_forever(gateway)
    assert vault.process.wait(60) == 0
    assert not vault.home.mailbox("vault").exists()


async def test_killed_at_any_moment_it_has_every_identity_that_it_promised(tmp_path: Path) -> None:
    random_ = random.Random(2)
    promised: dict[str, bytes] = {}
    asked: set[str] = set()

    async def create_until_killed(vault: RunningVault, round_: int) -> None:
        after = random_.randrange(1, 30)

        async def create(number: int) -> None:
            name = f"r{round_}-{number}"
            asked.add(name)
            try:
                promised[name] = (await gateway(CreateKey(name))).public
            except P2PError:
                return
            if number == after:
                vault.process.kill()

        async with vault_requests(vault, "gateway") as gateway:
            await gateway(ListKeys())
            await asyncio.gather(*(create(number) for number in range(40)))

    for round_ in range(4):
        with running_vault(tmp_path / "home") as vault:
            await create_until_killed(vault, round_)

    with running_vault(tmp_path / "home") as vault:
        async with vault_requests(vault, "gateway") as gateway:
            page = await gateway(ListKeys())
    assert page.damaged == ()
    found = {key.name: key.public for key in page.identities}
    assert promised.items() <= found.items()
    assert set(found) <= asked
    assert not list(tmp_path.rglob("*.tmp"))
