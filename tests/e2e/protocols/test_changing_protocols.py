"""Protocols are changed and removed by their owner: live, and with their data only if the owner says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import msgspec
import pytest

from fastn_p2p.console.process_snapshot import read_process_file
from fastn_p2p_client import ApplicationError, Client, ConnectionLost, Denied, serve_all
from fastn_p2p_client.errors import InvalidConfig
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.mail.sync import MailClient
from fastn_p2p_client.protocol import Protocol, request
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons(echo=False) as made:
        for daemon, name, id52 in ((made.one, "bob", made.bob), (made.two, "alice", made.alice)):
            with daemon.client() as client:
                client.control(m.AddPeer(id52, name))
        yield made


def bob(daemons: TwoDaemons, *arguments: str, code: int = 0, input: str | None = None) -> str:
    """Run a command of bob's; what it says."""
    done = daemons.two.cli(*arguments, input=input)
    assert done.returncode == code, done.stderr
    return done.stderr


REMOVE_MAIL = ("remove-protocol", "bob", "--protocol", "Mail")


def test_a_mailbox_with_mail_is_not_removed_by_the_way(daemons: TwoDaemons) -> None:
    """A script is told what to say, a person is asked, and what is kept is found again."""
    add_binding(daemons.one, "alice", "Mail")
    bob(daemons, "add-protocol", "bob", "--protocol", "Mail")
    with MailClient("alice", home=daemons.one.home) as alice:
        assert alice.track(alice.send("bob", "hello", "a body").id, wait=60).state == "delivered"

    words = bob(daemons, *REMOVE_MAIL, code=2)
    assert "holds a mailbox with 1 mail, 1 of them unread" in words
    assert "--yes" in words
    assert "--keep-data" in words
    with on_terminal(daemons.two.env, *REMOVE_MAIL) as tty:
        tty.until(lambda rows: any("Delete? [y/N]" in row for row in rows), "it asks")
        tty.type("n\n")
        tty.until(lambda rows: any("Nothing was deleted." in row for row in rows), "it was told no")
        assert tty.ends() == 130

    bob(daemons, *REMOVE_MAIL, "--keep-data")
    bob(daemons, "add-protocol", "bob", "--protocol", "Mail")
    assert "hello" in daemons.two.cli("mail", "list").stdout
    with on_terminal(daemons.two.env, *REMOVE_MAIL) as tty:
        tty.until(lambda rows: any("Delete? [y/N]" in row for row in rows), "it asks")
        tty.type("y\n")
        assert tty.ends() == 0
    bob(daemons, "add-protocol", "bob", "--protocol", "Mail")
    assert daemons.two.cli("mail", "list").stdout == ""
    bob(daemons, *REMOVE_MAIL, "--yes")


def test_a_chat_and_an_inbox_say_what_they_hold(daemons: TwoDaemons) -> None:
    inbox, offered = daemons.two.home.path / "inbox", daemons.one.home.path / "offered"
    inbox.mkdir()
    offered.write_text("x")
    bob(daemons, "add-protocol", "bob", "--protocol", "Chat")
    bob(daemons, "add-protocol", "bob", "--protocol", "FileTransfer", "--config", json.dumps({"inbox": str(inbox)}))
    bob(daemons, "chat", "alice", input="one\ntwo\n")
    words = bob(daemons, "remove-protocol", "bob", "--protocol", "Chat", code=2)
    assert "2 messages of conversations with 1 peer, 2 of them not delivered yet" in words
    assert daemons.one.cli("files", "put", "bob", str(offered), "--timeout", "0").returncode != 0
    words = bob(daemons, "remove-protocol", "bob", "--protocol", "FileTransfer", code=2)
    assert "the record of 1 offer, 1 of them not finished" in words
    for protocol in ("Chat", "FileTransfer"):
        bob(daemons, "remove-protocol", "bob", "--protocol", protocol, "--yes")


def test_a_config_is_set_while_it_serves(daemons: TwoDaemons) -> None:
    add_binding(daemons.two, "bob", "Echo", "live", max_length=100)
    change = ("set-protocol", "bob", "--protocol", "Echo", "--alias", "live")
    pid = daemons.two.pid("identity-bob")
    with daemons.one.client() as client:

        def echo() -> object:
            try:
                return client.call("alice", daemons.bob, "Echo", "live", request={"message": "hello"})
            except ApplicationError as error:
                return error.payload

        assert echo() == {"echoed": "Echo: hello"}
        assert "State: serving" in bob(daemons, *change, "--config", '{"max_length": 3}')
        assert echo() == {"length": 5, "max_length": 3}
        assert "$.max_length" in bob(daemons, *change, "--config", '{"max_length": 0}', code=2)
        assert echo() == {"length": 5, "max_length": 3}
    assert daemons.two.pid("identity-bob") == pid
    assert "no Echo as 'other'" in bob(daemons, *change, "--alias", "other", "--allow", "peers", code=7)


async def test_an_access_list_that_is_set_ends_what_it_does_not_allow(daemons: TwoDaemons) -> None:
    """The sessions of a peer that lost the right, and no others."""
    add_binding(daemons.two, "bob", "Trial", "mine", "alice")
    add_binding(daemons.two, "bob", "Trial", "other", "alice")
    async with Client(daemons.one.home) as client, Client(daemons.two.home) as control:
        sessions = []
        for instance in ("mine", "other"):
            session = await client.connect("alice", daemons.bob, "Trial", instance, {"do": "echo"})
            await session.write(b"x")
            assert await session.read() == b"x"
            sessions.append(session)
        await control.control(m.SetProtocol("bob", "Trial", "mine", (daemons.bob,)))
        with pytest.raises(ConnectionLost):
            await sessions[0].read()
        with pytest.raises(Denied):
            await client.connect("alice", daemons.bob, "Trial", "mine", {"do": "echo"})
        await sessions[1].write(b"y")
        assert await sessions[1].read() == b"y"
        await control.control(m.SetProtocol("bob", "Trial", "mine", ("alice",)))
        async with await client.connect("alice", daemons.bob, "Trial", "mine", {"do": "echo"}) as again:
            await again.write(b"z")
            assert await again.read() == b"z"
        await sessions[1].close()


class Limited(Protocol):
    """A protocol that a program serves, with a config that can be wrong."""

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        limit: int

    config: Config

    @request
    async def read(self, _: None) -> int:
        return self.config.limit


async def test_a_program_that_serves_goes_on_with_what_is_set_or_refuses_it(daemons: TwoDaemons) -> None:
    async with Client(daemons.one.home) as one, Client(daemons.two.home) as two:
        await two.control(m.AddProtocol("bob", "Limited", "default", ("alice",), True), b'{"limit": 1}')
        server = serve_all(daemons.two.home)
        server.protocol(Limited)
        serving = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(60):
                await server.ready.wait()
            assert await one.call("alice", daemons.bob, "Limited") == 1
            await two.control(m.SetProtocol("bob", "Limited", "default"), b'{"limit": 2}')
            assert await one.call("alice", daemons.bob, "Limited") == 2
            with pytest.raises(InvalidConfig, match="the program that serves it says"):
                await two.control(m.SetProtocol("bob", "Limited", "default"), b'{"limt": 3}')
            assert await one.call("alice", daemons.bob, "Limited") == 2
            await two.control(m.SetProtocol("bob", "Limited", "default", (daemons.bob,)))
            with pytest.raises(Denied):
                await one.call("alice", daemons.bob, "Limited")
        finally:
            server.close()
            await serving
    config = json.loads((daemons.two.home.identities / "bob/protocols/Limited/default/config.json").read_text())
    assert (config["config"], config["allow"]) == ({"limit": 2}, [daemons.bob])


def test_a_command_that_restarts_the_identity_says_so(daemons: TwoDaemons) -> None:
    """A sandbox cannot grow or shrink: sessions of all protocols of the identity end with its process."""
    tunnel = ("--protocol", "Tunnel", "--instance")
    words = "bob's process was restarted, because its permissions have changed."
    assert words in bob(daemons, "add-protocol", "bob", *tunnel, "restarts", "--config", '{"target": "127.0.0.1:9"}')
    assert words in bob(daemons, "set-protocol", "bob", *tunnel, "restarts", "--config", '{"target": "127.0.0.1:7"}')
    assert words not in bob(daemons, "add-protocol", "bob", "--protocol", "Echo", "--instance", "restarts")
    assert words in bob(daemons, "remove-protocol", "bob", *tunnel, "restarts", "--yes")


async def test_the_process_file_is_current_when_a_command_is_answered(daemons: TwoDaemons) -> None:
    """Commands compare it before and after, also on a machine that restarts a process within milliseconds."""
    home = daemons.two.home
    async with Client(home) as two:
        target = ("Tunnel", "current")
        await two.control(m.AddProtocol("bob", *target, granted=("connect 127.0.0.1:9",)), b'{"target": "127.0.0.1:9"}')
        pids = []
        for port in range(10, 18):
            await two.control(m.SetProtocol("bob", *target), b'{"target": "127.0.0.1:%d"}' % port)
            listed = read_process_file(home)
            assert listed is not None
            pids += [each.pid for each in listed.processes if each.name == "identity-bob"]
        assert len(set(pids)) == 8, pids
        assert all(pids), pids
        await two.control(m.RemoveProtocol("bob", *target))
