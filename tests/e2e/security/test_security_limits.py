"""Too long, too deep, too many, too clever: refused with an error that says so, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import pytest

from fastn_p2p_actors.gateway.control_server import MAX_COMMANDS_PER_PROGRAM
from fastn_p2p_client.errors import IdentityOffline, InvalidConfig, InvalidKey, InvalidName, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.limits import MAX_HEADER, MAX_NAME, MAX_PAYLOAD
from tests.support.daemons import Daemon
from tests.support.processes import send_signal
from tests.support.raw_connections import Raw, hello, unharmed

MIB: Final = 1024 * 1024
IDENTITY_REPLY: Final = 41
BAD_NAMES: Final = [
    "",
    ".",
    "..",
    "../alice",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\n",
    "a b",
    "-a",
    ".hidden",
    "~",
    "$HOME",
    "alice.json",
    "älice",
    "аlice",
    "a\u202eb",
    "a\u0301",
    "𝒶",
    "%2e%2e",
    "a" * (MAX_NAME + 1),
    "a" * 60_000,
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """alice is online with Echo, carol offline."""
    folder = tmp_path_factory.mktemp("limits")
    daemon = Daemon(folder / "home", folder / "hosts").start()
    daemon.identity("carol", online=False, echo=False)
    daemon.identity("alice")
    yield daemon
    daemon.clean_up()


def files_of(daemon: Daemon) -> set[str]:
    """Return the files in the home and beside it, without directories and what comes and goes by itself: logs,
    temporary files of atomic writes, and the time that the network process notes."""
    top = daemon.home.path.parent
    paths = (path for path in top.rglob("*") if path.suffix not in (".log", ".tmp") and not path.is_dir())
    return {str(path.relative_to(top)) for path in paths} - {str((daemon.home.path / "run/time").relative_to(top))}


COMMANDS: Final[dict[str, Callable[[str], m.RequestFor[m.Message]]]] = {
    "CreateIdentity": m.CreateIdentity,
    "DeleteIdentity": m.DeleteIdentity,
    "SetIdentityOnline": lambda name: m.SetIdentityOnline(name, True),
    "AddProtocol, identity": lambda name: m.AddProtocol(name, "Echo", "default"),
    "AddProtocol, protocol": lambda name: m.AddProtocol("alice", name, "default"),
    "AddProtocol, instance": lambda name: m.AddProtocol("alice", "Echo", name),
    "AddProtocol, allow": lambda name: m.AddProtocol("alice", "Echo", "odd", (name,)),
    "RemoveProtocol, identity": lambda name: m.RemoveProtocol(name, "Echo", "default"),
    "RemoveProtocol, protocol": lambda name: m.RemoveProtocol("alice", name, "default"),
    "RemoveProtocol, instance": lambda name: m.RemoveProtocol("alice", "Echo", name),
    "AddPeer": lambda name: m.AddPeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", name),
    "RemovePeer": m.RemovePeer,
    "GetTicket": m.GetTicket,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_names_that_could_mean_something_else_are_refused(running: Daemon, command: str) -> None:
    before = files_of(running)
    with unharmed(running), running.client() as client:
        for name in BAD_NAMES:
            if command == "GetTicket" and not name:
                continue  # the only identity online
            with pytest.raises((InvalidName, InvalidKey)) as caught:  # a long text in place of a peer is meant as a key
                client.control(COMMANDS[command](name))
            assert len(str(caught.value)) < 1000
    assert files_of(running) == before


def test_names_in_calls_lead_nowhere(running: Daemon) -> None:
    with unharmed(running), running.client() as client:
        (alice,) = (each.id52 for each in running.status().identities if each.name == "alice")
        for name in BAD_NAMES:
            for arguments in (
                (name, alice, "Echo", "default"),
                ("alice", name, "Echo", "default"),
                ("alice", alice, name, "default"),
                ("alice", alice, "Echo", name),
            ):
                if arguments[0] == "":
                    continue  # the only identity online
                with pytest.raises(P2PError) as caught:
                    client.call(*arguments, request={"message": "hi"}, timeout=30)
                assert caught.value.code in (
                    "identity-offline",
                    "peer-unknown",
                    "invalid-key",
                    "invalid-name",
                    "protocol-not-found",
                    "instance-not-found",
                ), arguments
        assert client.call("alice", alice, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}


def test_header_of_every_length_up_to_the_limit_is_answered(running: Daemon) -> None:
    """Around the sizes at which a field still fits one frame, and no longer fits the next."""
    with unharmed(running), Raw(running.home.mailbox("network")) as raw:
        for size in (MAX_HEADER - 200, MAX_HEADER - 120, *range(MAX_HEADER - 100, MAX_HEADER + 5, 5)):
            for call in (
                m.Call("alice", "v" * 52, "E", "default", 1000),
                m.Call("alice", "alice", "", "default", 1000),
                m.Call("", "alice", "Echo", "", 1000),
            ):
                empty = len(m.encode(call))
                filled = msgspec.structs.replace(call, protocol="P" * (size - empty))
                assert raw.request(filled) in ("invalid-name", "bad-message"), (size, call)


def test_payload_above_the_limit_is_refused_before_it_is_sent(running: Daemon) -> None:
    with running.client() as client:
        with pytest.raises(PayloadTooLarge) as caught:
            client.call("alice", "bob", "Echo", request=bytes(MAX_PAYLOAD))
        assert caught.value.limit == MAX_PAYLOAD
        with pytest.raises(PayloadTooLarge):
            client.control(m.AddProtocol("alice", "Echo", "large"), bytes(MAX_PAYLOAD + 1))


BOMBS: Final = {
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in a field": b'{"max_length": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "10 MB of text": b'{"max_length": "' + b"x" * 10 * MIB + b'"}',
    "10 MB of lists": b"[" + b"[]," * (3 * MIB) + b"[]]",
    "10 MB of unknown fields": b"{" + b",".join(b'"%d":0' % number for number in range(800_000)) + b"}",
    "10 MB of digits": b'{"max_length": ' + b"9" * 10 * MIB + b"}",
    "an exponent": b'{"max_length": 1e999999999}',
    "not a number": b'{"max_length": NaN}',
    "text that is none": b'{"max_length": "\xff\xfe"}',
    "half a surrogate": b'{"\\ud800": 1}',
    "a NUL": b"\0",
    "no object": b"[]",
    "two": b"{}{}",
}


@pytest.mark.parametrize("identity", ["alice", "carol"])
def test_config_bombs_are_invalid_configs(running: Daemon, identity: str) -> None:
    """For an identity that is online and for one that is not."""
    before = files_of(running)
    with unharmed(running, grows_by=80 * MIB), running.client() as client:
        for name, config in BOMBS.items():
            with pytest.raises(InvalidConfig) as caught:
                client.control(m.AddProtocol(identity, "Echo", "bomb"), config, timeout=30)
            assert len(str(caught.value)) < 5000, name
    assert files_of(running) == before


def test_commands_in_flight_of_one_program_are_limited(running: Daemon) -> None:
    """While the vault does not answer. Another program is served meanwhile, and all of them in the end."""
    vault = running.pid("vault")
    with unharmed(running), Raw(running.home.control_socket) as raw:
        hello(raw)
        send_signal(vault, signal.SIGSTOP)
        try:
            for number in range(MAX_COMMANDS_PER_PROGRAM):
                assert raw.send(b"c%d" % number, m.encode(m.CreateIdentity(f"crowd{number}")), b"")
            for _ in range(3):
                assert raw.request(m.CreateIdentity("one-more")) == "overloaded"
            with Raw(running.home.control_socket) as other:
                hello(other)
                assert other.request(m.ListIdentities()) == 42
        finally:
            os.kill(vault, signal.SIGCONT)
        answers = [raw.receive(20) for _ in range(MAX_COMMANDS_PER_PROGRAM)]
        assert {msgspec.msgpack.decode(answer[1])[0] for answer in answers if answer} == {IDENTITY_REPLY}
        assert None not in answers
        assert raw.request(m.CreateIdentity("one-more")) == IDENTITY_REPLY


def test_offline_identity_makes_no_calls(running: Daemon) -> None:
    with running.client() as client, pytest.raises(IdentityOffline):
        client.call("carol", "alice", "Echo")
