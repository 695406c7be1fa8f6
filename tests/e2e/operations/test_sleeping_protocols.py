"""Protocols of identities that fall asleep: sessions, hooks, mail and messages that wait, and changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.chat.client import ChatClient
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import (
    AddPeer,
    AddProtocol,
    DeleteIdentity,
    IdentityStatus,
    RevokeIdentity,
    SetIdentityOnline,
    SetIdle,
)
from fastn_p2p_client.mail.sync import MailClient
from fastn_p2p_client.serving.binding_server import serve_all
from tests.support.daemons import Daemon, eventually
from tests.support.diary_protocol import Diary
from tests.support.protocols import StreamOrder, install_protocols
from tests.support.serving_programs import serving
from tests.support.two_daemons import add_binding, until_awaited


class Pair:
    """Identities sleep at ``one``; ``bob``, with Mail and Chat, is at ``two``. They know each other."""

    def __init__(self, folder: Path) -> None:
        installed = install_protocols(folder / "installed", Diary="tests.support.diary_protocol:Diary")
        self.one = Daemon(folder / "one", folder / "hosts", **installed)
        self.two = Daemon(folder / "two", folder / "hosts")

    def start(self) -> None:
        self.one.start()
        self.two.start()
        self.bob = self.two.identity("bob", echo=False)
        for protocol in ("Mail", "Chat"):
            add_binding(self.two, "bob", protocol)

    def identity(self, name: str, *protocols: str) -> str:
        """A new identity with these protocols, and bob in the address book; its ID52."""
        id52 = self.one.identity(name, echo=False)
        for protocol in protocols:
            add_binding(self.one, name, protocol)
        with self.two.client() as client:
            client.control(AddPeer(id52, name))
        with self.one.client() as client, suppress(P2PError):  # it is there already
            client.control(AddPeer(self.bob, "bob"))
        return id52

    def state(self, name: str) -> IdentityStatus:
        return next(each for each in self.one.status().identities if each.name == name)

    def is_asleep(self, name: str) -> bool:
        return self.state(name).asleep and f"identity-{name}" not in self.one.processes()

    def set_idle(self, name: str, seconds: int = 1) -> None:
        with self.one.client() as client:
            client.control(SetIdle(name, seconds))

    def put_to_sleep(self, name: str) -> None:
        self.set_idle(name)
        eventually(lambda: self.is_asleep(name), f"{name} is asleep")

    def notes(self, name: str) -> list[str]:
        return (self.one.home.identities / name / "protocols/Diary/default/notes").read_text().splitlines()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("sleep"))
    try:
        made.start()
        yield made
    finally:
        made.one.clean_up()
        made.two.clean_up()


async def test_session_wakes_an_identity_and_keeps_it_awake(pair: Pair) -> None:
    streamer = await asyncio.to_thread(pair.identity, "streamer", "Trial")
    await asyncio.to_thread(pair.identity, "timer", "Trial")
    await asyncio.to_thread(pair.put_to_sleep, "streamer")
    async with Client(pair.two.home) as client:
        async with await client.connect("bob", streamer, "Trial", initial=StreamOrder("echo")) as session:
            await session.write(b"good morning")
            assert await session.read_exactly(12) == b"good morning"
            await asyncio.to_thread(pair.put_to_sleep, "timer")  # after a longer time without use
            assert not await asyncio.to_thread(pair.is_asleep, "streamer")
            await session.write(b"still here?")
            assert await session.read_exactly(11) == b"still here?"
        await until_awaited(lambda: asyncio.to_thread(pair.is_asleep, "streamer"), "streamer is asleep again")


def test_hooks_of_a_hosted_protocol_see_the_reason(pair: Pair) -> None:
    writer = pair.identity("diarist", "Diary")
    pair.put_to_sleep("diarist")
    assert pair.notes("diarist") == ["activated", "deactivated: idle"]
    pair.set_idle("diarist", 3600)  # it is still awake when it is brought offline
    with pair.two.client() as client:
        assert client.call("bob", writer, "Diary", timeout=30) == ["activated", "deactivated: idle", "activated"]
    with pair.one.client() as client:
        client.control(SetIdentityOnline("diarist", False))
    assert pair.notes("diarist")[2:] == ["activated", "deactivated: stopped"]


async def test_hooks_of_a_program_see_no_sleep(pair: Pair) -> None:
    """The program decides how long it runs: it serves while its identity sleeps, and ends by itself."""
    served = await asyncio.to_thread(pair.identity, "served")
    with pair.one.client() as control:
        control.control(AddProtocol("served", "Diary", "default", program=True))
    await asyncio.to_thread(pair.put_to_sleep, "served")
    server = serve_all(pair.one.home)
    server.protocol(Diary)
    async with serving(server), Client(pair.two.home) as client:

        async def read() -> object:
            with suppress(P2PError):
                return await client.call("bob", served, "Diary", timeout=5)
            return None

        assert await until_awaited(read, "the program serves") == ["activated"]
        assert await asyncio.to_thread(pair.is_asleep, "served")
    assert pair.notes("served") == ["activated", "deactivated: stopped"]


def test_mail_and_messages_that_wait_keep_it_awake_until_they_are_delivered(pair: Pair) -> None:
    pair.identity("mailer", "Mail")
    pair.identity("chatter", "Chat")
    pair.identity("idler", "Trial")
    pair.two.stop()
    with MailClient("mailer", home=pair.one.home) as mail:
        mail.send("bob", "Hello", "Are you there?")
    asyncio.run(_say(pair.one, "chatter", "hello"))
    for name in ("mailer", "chatter"):
        pair.set_idle(name)
    pair.put_to_sleep("idler")  # after a longer time without use
    assert [pair.is_asleep(each) for each in ("mailer", "chatter")] == [False, False]
    pair.two.start()
    for name in ("mailer", "chatter"):
        eventually(lambda name=name: pair.is_asleep(name), f"{name} is asleep")  # type: ignore[misc]
    with MailClient("bob", home=pair.two.home) as mail:
        assert [each.subject for each in mail.list(wait=30).mails] == ["Hello"]


async def _say(daemon: Daemon, identity: str, text: str) -> None:
    async with Client(daemon.home) as client:
        conversation = await ChatClient(client, identity).with_peer("bob")
        await conversation.send(text)


def test_settings_of_a_sleeping_identity_hold_when_it_wakes(pair: Pair) -> None:
    settled = pair.identity("settled", "Trial")
    pair.put_to_sleep("settled")
    pair.one.cli("identity", "set", "settled", "--unlisted", "--max-open-files", "200", "--idle", "10m")
    assert pair.is_asleep("settled")
    state = pair.state("settled")
    assert (state.listed, state.limits.open_files, state.idle) == (False, 200, 600)
    with pair.two.client() as client:
        client.call("bob", settled, "Trial", request={"do": "return"}, timeout=30)
    pid = pair.one.wait_actor("identity-settled")
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")) == "200"
    assert pair.state("settled").idle == 600
    assert not pair.state("settled").listed


def test_revoked_identity_does_not_wake(pair: Pair) -> None:
    revoked = pair.identity("traitor", "Trial")
    pair.put_to_sleep("traitor")
    with pair.one.client() as client:
        client.control(RevokeIdentity("traitor"))
    state = pair.state("traitor")
    assert (state.online, state.asleep) == (False, False)
    assert not (pair.one.home.path / "run/asleep/traitor.json").exists()
    with pair.two.client() as client, pytest.raises(P2PError) as raised:
        client.call("bob", revoked, "Trial", request={"do": "return"}, timeout=10)
    assert raised.value.code in ("identity-revoked", "peer-offline", "peer-revoked")
    assert "identity-traitor" not in pair.one.processes()


def test_sleeping_identity_is_backed_up_and_sleeps_after_it_was_restored(pair: Pair, tmp_path: Path) -> None:
    kept = pair.identity("kept", "Trial")
    pair.put_to_sleep("kept")
    backup, passphrase = str(tmp_path / "backup.age"), tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    options = ("--identity", "kept", "--passphrase-file", str(passphrase))
    assert pair.one.cli("backup", "create", backup, *options).returncode == 0
    assert pair.is_asleep("kept")
    with pair.one.client() as client:
        client.control(DeleteIdentity("kept"))
    assert pair.one.cli("backup", "restore", backup, *options, "--without-peers").returncode == 0
    eventually(lambda: pair.is_asleep("kept"), "it sleeps")
    with pair.two.client() as client:
        assert client.call("bob", kept, "Trial", request={"do": "return", "value": 7}, timeout=30) == 7
