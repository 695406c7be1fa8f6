"""The machine's side: noise on every Unix socket of the daemon, below and above ZeroMQ, and a daemon that lives on."""

from __future__ import annotations

import random
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastn_p2p_actors.identity import messages as identity
from fastn_p2p_actors.network import admin_messages as network
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.transport.native.codec import ready
from fastn_p2p_client.limits import MAX_CLIENTS_PER_PROGRAM, MAX_GROUP
from tests.support.daemons import Daemon, eventually
from tests.support.processes import child, open_files
from tests.support.raw_connections import Keys, Raw, hello, unharmed

ROOT: Final = Path(__file__).parents[2]
SOCKETS: Final = ("control", "network", "vault", "identity-alice")
NULL_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
CURVE_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
READY: Final = ready("DEALER")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("local")
    daemon = Daemon(folder / "home", folder / "hosts").start()
    daemon.identity("alice")
    assert_serves(daemon)
    yield daemon
    daemon.clean_up()


def assert_serves(daemon: Daemon) -> None:
    """An honest program is still served by gateway, network and identity, and those by the vault."""
    with daemon.client() as client:
        keys = client.control(m.ListIdentities())
        reply = client.call("alice", keys.identities[0].id52, "Echo", request={"message": "hi"})
        assert reply == {"echoed": "Echo: hi"}
        assert isinstance(client.control(m.GetTicket("alice")), m.TicketText)


def path_of(daemon: Daemon, name: str) -> Path:
    return daemon.home.control_socket if name == "control" else daemon.home.mailbox(name)


def connect(path: Path) -> socket.socket | None:
    """A raw connection, or None while no process listens."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.settimeout(60)
    try:
        stranger.connect(str(path))
    except OSError:
        stranger.close()
        return None
    return stranger


def throw(path: Path, data: bytes) -> None:
    """Write it to a raw connection, and hang up."""
    stranger = connect(path)
    if stranger is not None:
        with stranger:
            try:
                stranger.sendall(data)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
            except OSError:
                return


def old_protocols(noise: random.Random) -> list[bytes]:
    """Greetings of ZMTP 1.0 and 2.0. Unchecked, libzmq aborts its process on some of them."""
    return [
        *(bytes([length]) + noise.randbytes(200) for length in (1, 2, 5, 10, 100, 254)),
        *(b"\xff" + noise.randbytes(8) + b"\x01" + bytes([kind]) + noise.randbytes(100) for kind in range(0, 12, 3)),
        *(
            b"\x01\x00" + b"\xff" + size.to_bytes(8, "big") + b"\0" + noise.randbytes(50)
            for size in (0, 1, 2**31, 2**63)
        ),
    ]


def new_protocols(noise: random.Random) -> list[bytes]:
    """Greetings of ZMTP 3, and then what should not follow."""
    return [
        *(NULL_GREETING + noise.randbytes(size) for size in (1, 10, 300)),
        *(CURVE_GREETING + noise.randbytes(size) for size in (1, 10, 300)),
        NULL_GREETING[:11] + b"\x09" + NULL_GREETING[12:],
        NULL_GREETING.replace(b"NULL", b"PLAI"),
        NULL_GREETING + READY[:20],
        NULL_GREETING + b"\x04\xff" + b"x" * 255,
        NULL_GREETING + b"\x06" + (2**63 - 1).to_bytes(8, "big") + b"x" * 100,
        NULL_GREETING + READY + noise.randbytes(300),
        NULL_GREETING + READY + b"\x02" + (2**62).to_bytes(8, "big") + b"x" * 100,
        NULL_GREETING + READY + b"\x01\x01x" * 5000,
        NULL_GREETING + READY + b"\x04\x05\x04PING",
        NULL_GREETING + READY + b"\x04\x01\xff",
        NULL_GREETING + READY + b"\x04\x00",
        NULL_GREETING + READY * 3,
        NULL_GREETING * 3,
        b"",
    ]


@pytest.mark.parametrize("name", SOCKETS)
def test_bytes_that_are_no_zeromq_do_no_harm(shared: Daemon, name: str) -> None:
    noise = random.Random(name)
    path = path_of(shared, name)
    with unharmed(shared):
        for data in (*old_protocols(noise), *new_protocols(noise), *(noise.randbytes(200) for _ in range(40))):
            throw(path, data)
        assert_serves(shared)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SOCKETS),
    st.sampled_from([b"", NULL_GREETING, CURVE_GREETING, NULL_GREETING + READY]),
    st.binary(max_size=300),
)
def test_the_daemon_survives_any_bytes_on_a_local_socket(shared: Daemon, name: str, start: bytes, rest: bytes) -> None:
    with unharmed(shared):
        throw(path_of(shared, name), start + rest)
        assert_serves(shared)


# ── messages ─────────────────────────────────────────────────────────────────────────────────────

VALID: Final[dict[str, list[Any]]] = {
    "control": [
        m.Hello(1, "x"),
        m.ListIdentities(),
        m.GetStatus(),
        m.ListPeers(),
        m.GetTicket("nobody"),
        m.AddProtocol("nobody", "Echo", "default", ("peers",)),
        m.SetIdentityOnline("nobody", True),
        m.AddPeer("fastn1abc", "nobody"),
        m.RemovePeer("nobody"),
    ],
    "network": [
        m.Call("alice", "nobody", "Echo", "default", 100),
        m.Cancel(),
        m.Reply(),
        m.ApplicationErrorReply("kind", "message"),
        m.ErrorReply("denied", {"peer": "x", "protocol": "y", "instance": "z"}),
        m.RegisterIdentity("alice", bytes(16)),
        m.RegisterBinding("alice", "Echo", "default", ("everyone",), bytes(16)),
        m.UnregisterBinding("alice", "Echo", "default"),
        m.UnregisterIdentity("alice"),
        m.WaitForPeer("alice", "nobody", 100),
        network.AuthenticateGateway(bytes(16)),
        network.SavePeer("fastn1abc", "nobody"),
        network.DeletePeer("nobody"),
        network.GetPeers(),
        network.GetNetworkReport(),
        network.CreateTicket("alice"),
    ],
    "identity-alice": [identity.GetBindingStates(), m.Cancel(), identity.Activate("Nothing", "default")],
}


def nonsense(noise: random.Random, valid: list[Any]) -> bytes:
    """A valid message with something wrong, or nothing of the kind."""
    message = bytearray(m.encode(noise.choice(valid)))
    match noise.randrange(6):
        case 0:
            message[noise.randrange(len(message))] ^= 1 << noise.randrange(8)
        case 1:
            del message[noise.randrange(len(message)) :]
        case 2:
            message += noise.randbytes(noise.randrange(1, 20))
        case 3:
            fields = msgspec.msgpack.decode(bytes(message))
            fields[noise.randrange(len(fields))] = noise.choice(
                [None, -1, 2**64 - 1, "x" * 1000, b"\xff", [], {}, "\0"]
            )
            message = bytearray(m.encode(fields))
        case 4:
            message = bytearray(noise.randbytes(noise.randrange(200)))
        case _:
            fields = msgspec.msgpack.decode(bytes(message))
            message = bytearray(m.encode([noise.randrange(400), *fields[1:]]))
    return bytes(message)


@pytest.mark.parametrize("name", VALID)
def test_messages_with_something_wrong_are_answered_or_dropped(shared: Daemon, name: str) -> None:
    noise = random.Random(name)
    with unharmed(shared), Raw(path_of(shared, name)) as raw:
        if name == "control":
            hello(raw)
        for _ in range(20):
            for _ in range(50):
                assert raw.send(
                    noise.randbytes(9), nonsense(noise, VALID[name]), noise.randbytes(noise.choice([0, 50]))
                )
            while (answer := raw.receive(0)) is not None:
                assert len(answer) == 3
                assert isinstance(msgspec.msgpack.decode(answer[1]), list)
        assert raw.request(VALID[name][0]) is not None
        assert_serves(shared)


DEEP: Final = b"\x91" * 60_000
BOMBS: Final[dict[str, Callable[[int], bytes]]] = {
    "nothing": lambda _: b"",
    "deep": lambda tag: b"\x92" + m.encode(tag) + DEEP,
    "deep in an extra field": lambda tag: b"\xdc\x00\x20" + m.encode(tag) + b"\xa1x" * 30 + DEEP,
    "deep in a map": lambda tag: b"\x93" + m.encode(tag) + b"\xa1x" + b"\x81\xa1r" * 15_000 + b"\xc0",
    "announces four billion items": lambda tag: b"\xdd\xff\xff\xff\xff" + m.encode(tag),
    "announces four billion bytes": lambda tag: b"\x92" + m.encode(tag) + b"\xc6\xff\xff\xff\xff",
    "text that is none": lambda tag: b"\x93" + m.encode(tag) + b"\xa4\xff\xfe\xfd\xfc\xa0",
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_bad_messages(shared: Daemon, name: str, bomb: str) -> None:
    """Compression bombs inside each type of message that the mailbox knows."""
    with unharmed(shared), Raw(path_of(shared, name)) as raw:
        if name == "control":
            hello(raw)
        for message in VALID[name]:
            tag, *fields = msgspec.msgpack.decode(m.encode(message))
            if tag == 1 or (bomb == "text that is none" and not fields):
                continue  # a Cancel has no answer, and fields that are not known are not looked at
            assert raw.request(BOMBS[bomb](tag)) == "bad-message", message
    assert_serves(shared)


@pytest.mark.parametrize("name", [*VALID, "vault"])
def test_frames_of_any_number_and_size_are_refused_or_dropped(shared: Daemon, name: str) -> None:
    with unharmed(shared), Raw(path_of(shared, name)) as raw:
        if name == "vault":
            assert not raw.send(b"1", b"2", b"3", timeout=0.3)
            return
        for count in (1, 2, 4, 5, 7, 3 * MAX_GROUP - 1, 3 * MAX_GROUP + 1, 3 * MAX_GROUP + 3, 3000):
            assert raw.send(*([b"frames"] * count))
        assert raw.send(b"i" * 17, b"", b"")
        assert raw.send(b"", b"", b"")
        assert raw.send(b"header", b"h" * 65_537, b"")
        assert raw.send(b"payload", b"", bytes(16 * 1024 * 1024 + 1))
        codes: dict[bytes, str] = {}
        while b"payload" not in codes:
            answer = raw.receive()
            assert answer is not None, codes
            codes[answer[0]] = msgspec.msgpack.decode(answer[1])[1]
        assert codes.pop(b"payload") == "payload-too-large"
        assert b"header" in codes
        assert set(codes.values()) == {"bad-message"}
    assert_serves(shared)


def test_a_frame_above_the_limit_ends_the_connection_that_sent_it(shared: Daemon) -> None:
    """Before all of it has been read."""
    for name in VALID:
        with unharmed(shared, grows_by=24 * 1024 * 1024), Raw(path_of(shared, name)) as raw:
            assert raw.send(b"id", b"", bytes(40 * 1024 * 1024))
            assert raw.receive(0.2) is None
        assert_serves(shared)


# ── connections ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["control", "network"])
def test_more_connections_than_there_may_be_files_open(shared: Daemon, name: str) -> None:
    """libzmq aborts its process when it has no descriptor left for a connection that it accepts."""
    actor = "gateway" if name == "control" else name
    path, pid = path_of(shared, name), shared.pid(actor)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened: list[socket.socket] = []
    with unharmed(shared):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, limits[1]))
        try:
            for _ in range(1100):
                stranger = socket.socket(socket.AF_UNIX)
                stranger.setblocking(False)
                stranger.connect_ex(str(path))
                opened.append(stranger)
            assert open_files(pid) < 1024
        finally:
            for stranger in opened:
                stranger.close()
        assert_serves(shared)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


GREEDY: Final = """
import os, sys
from pathlib import Path
import msgspec
from fastn_p2p_client.ipc import messages as m
from tests.support.raw_connections import Raw, hello
path, count = Path(sys.argv[1]), int(sys.argv[2])
held, codes = [], []
while len(held) < count:  # one after the other: a socket does not reconnect if the handshake comes too late
    raw = Raw(path)
    answer = raw.receive(30) if raw.send(b"1", m.encode(m.Hello(1, "greedy")), b"", timeout=2) else None
    if answer is None:
        raw.__exit__(None, None, None)
        continue
    held.append(raw)
    header = msgspec.msgpack.decode(answer[1])
    codes.append("/".join(map(str, header[1:])) if header[0] == m.ErrorReply.__struct_config__.tag else "served")
print(msgspec.json.encode(codes).decode(), flush=True)
sys.stdin.read()
os._exit(0)  # libzmq may wait for ever when it ends with so many sockets
"""
"""Opens connections, keeps them, and prints what each was answered."""


@pytest.mark.parametrize("name", ["control", "network", "identity-alice"])
def test_one_program_with_very_many_connections_does_not_lock_others_out(shared: Daemon, name: str) -> None:
    """And the error says which program it is, and how many it holds."""
    command = [sys.executable, "-c", GREEDY, str(path_of(shared, name)), "640"]
    with (
        unharmed(shared, grows_by=32 * 1024 * 1024),
        child(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as greedy,
    ):
        assert greedy.stdin is not None
        assert greedy.stdout is not None
        codes = msgspec.json.decode(greedy.stdout.readline(), type=list[str])
        refused = [code for code in codes if code.startswith("overloaded")]
        assert len(codes) - len(refused) == MAX_CLIENTS_PER_PROGRAM
        assert f"process {greedy.pid} (" in refused[0]
        assert f"which holds {MAX_CLIENTS_PER_PROGRAM}" in refused[0]
        assert_serves(shared)
        greedy.stdin.close()
    assert_serves(shared)


def test_one_program_does_not_keep_the_vault_from_others(shared: Daemon) -> None:
    """The program has no key, so its connections are closed. The gateway reaches the vault after a restart."""
    crowd = [connect(path_of(shared, "vault")) for _ in range(640)]
    try:
        gateway = shared.kill_actor("gateway")
        shared.wait_actor("gateway", gateway)
        assert_serves(shared)
    finally:
        for each in crowd:
            if each is not None:
                each.close()
    assert_serves(shared)


def test_clients_that_come_and_go_leave_nothing_behind(shared: Daemon) -> None:
    def descriptors() -> dict[str, int]:
        return {name: open_files(process["pid"]) for name, process in shared.processes().items()}

    before = descriptors()
    with unharmed(shared, grows_by=16 * 1024 * 1024):
        for _ in range(300):
            with Raw(shared.home.control_socket) as raw:
                raw.send(b"1", m.encode(m.Hello(1, "brief")), b"")
    eventually(lambda: all(count <= before[name] + 5 for name, count in descriptors().items()), f"back to {before}")
    assert_serves(shared)


def test_the_vault_rejects_clients_with_unknown_keys(shared: Daemon) -> None:
    """Nor without; and not with its own public key, which is no secret."""
    public, _ = zmq.curve_keypair()
    with unharmed(shared), Raw(path_of(shared, "vault"), Keys.made_up(public.decode())) as raw:
        assert raw.request(vault.ListKeys(), timeout=0.3) is None
    assert_serves(shared)
