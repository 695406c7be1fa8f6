"""A service at one daemon, reached through the other one: ends, errors, restarts of everything."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.errors import InvalidConfig
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.processes import open_files
from tests.support.services import Service, echo
from tests.support.stub_daemon import short_path
from tests.support.tunnels import Forward, connected, exchange, forwarding
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons, wait_idle


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service(echo).start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def daemons(service: Service) -> Iterator[TwoDaemons]:
    """bob has the service as ``web``, for everyone, and as ``private``, for peers."""
    with start_two_daemons() as daemons:
        add_binding(daemons.two, "bob", "Tunnel", "web", "everyone", target=service.address)
        add_binding(daemons.two, "bob", "Tunnel", "private", target=service.address)
        yield daemons


@pytest.fixture(scope="module")
def web(daemons: TwoDaemons) -> Iterator[Forward]:
    with forwarding(daemons.one, daemons.bob, "web", "--listen", "127.0.0.1:0") as forward:
        yield forward


def works(address: str) -> bool:
    try:
        return exchange(address, b"hi") == b"hi"
    except OSError:
        return False


def is_reset(connection: socket.socket) -> bool:
    """Waits for its end."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


def is_rejected(forward: Forward) -> bool:
    """Return true if a new connection is reset, which may happen during connect."""
    try:
        with forward.connect() as connection:
            return is_reset(connection)
    except ConnectionResetError:
        return True


# ── connections ──────────────────────────────────────────────────────────────────────────────────


def test_bytes_come_out_after_the_end_of_one_direction(web: Forward) -> None:
    content = os.urandom(5_000_000)
    assert exchange(web.address, content) == content


def test_many_connections_at_once(daemons: TwoDaemons, web: Forward) -> None:
    texts = [f"{number} ".encode() * 20_000 for number in range(80)]
    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(lambda text: exchange(web.address, text), texts)) == texts
    before = open_files(web.process.pid)
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(lambda _: works(web.address), range(100)))
    eventually(lambda: open_files(web.process.pid) <= before, "every socket is closed")
    wait_idle(daemons.two)


def test_a_client_that_resets_ends_it_everywhere(daemons: TwoDaemons, web: Forward) -> None:
    connection = web.connect()
    connection.sendall(b"hi")
    assert connection.recv(2) == b"hi"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    with daemons.one.client() as client:
        eventually(
            lambda: client.call("alice", daemons.bob, "Tunnel", "web", {})["connections"] == 0, "the tunnel is empty"
        )


def refuse(connection: socket.socket) -> None:
    """A conversation: answers before it has read the request, and closes with the rest of it unread."""
    connection.recv(1000)
    connection.sendall(b"too large" * 10_000)


def test_an_answer_before_the_whole_request_arrives(daemons: TwoDaemons) -> None:
    """Over TCP it does: the kernel sends the answer, then a reset. Through the command ``stream`` likewise."""
    service = Service(refuse).start()
    add_binding(daemons.two, "bob", "Tunnel", "refusing", "everyone", target=service.address)
    try:
        with forwarding(daemons.one, daemons.bob, "refusing", "--listen", "127.0.0.1:0") as forward:
            for _ in range(10):
                with forward.connect() as connection:
                    uploading = threading.Thread(target=upload, args=(connection, 3_000_000))
                    uploading.start()
                    answer = bytearray()
                    with suppress(ConnectionResetError):
                        while data := connection.recv(1 << 16):
                            answer += data
                    uploading.join(60)
                    assert answer == b"too large" * 10_000
        done = subprocess.run(
            [*CLI, "stream", daemons.bob, "Tunnel", "refusing"],
            input=bytes(30_000_000),
            env=daemons.one.env,
            capture_output=True,
            timeout=100,
        )
        assert (done.returncode, done.stdout) == (ExitCode.RESET, b"too large" * 10_000), done.stderr
    finally:
        service.stop()


def upload(connection: socket.socket, size: int) -> None:
    with suppress(ConnectionError):
        connection.sendall(bytes(size))


def test_a_service_that_goes_away_and_comes_back(daemons: TwoDaemons) -> None:
    service = Service(echo).start()
    add_binding(daemons.two, "bob", "Tunnel", "flaky", "everyone", target=service.address)
    with forwarding(daemons.one, daemons.bob, "flaky", "--listen", "127.0.0.1:0") as forward:
        assert works(forward.address)
        service.stop()
        for _ in range(5):
            assert is_rejected(forward)
        assert "cannot be reached: connection refused" in forward.wait_for_message("a connection was closed")
        service.start()
        assert works(forward.address)
        forward.wait_for_message("connections work again")
        assert len(forward.messages) == 3
    service.stop()


def test_a_unix_socket_at_both_ends(daemons: TwoDaemons) -> None:
    with short_path() as directory:
        target, listen = directory / "target", directory / "listen"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
            listener.listen()
            add_binding(daemons.two, "bob", "Tunnel", "unix", "everyone", target=f"unix:{target}")
            with forwarding(daemons.one, daemons.bob, "unix", "--listen", f"unix:{listen}") as forward:
                assert forward.address == f"unix:{listen}"
                assert stat.S_IMODE(listen.stat().st_mode) == 0o600
                with forward.connect() as here:
                    there, _ = listener.accept()
                    with there:
                        there.settimeout(60)
                        here.sendall(b"ping")
                        assert there.recv(4) == b"ping"
                        there.sendall(b"pong")
                        assert here.recv(4) == b"pong"
                assert forward.end() == ExitCode.OK
        assert not listen.exists()


# ── starting and ending ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)])
def test_it_ends_when_it_is_told_to(daemons: TwoDaemons, number: signal.Signals, code: ExitCode) -> None:
    forward = Forward(daemons.one, daemons.bob, "web", "--listen", "127.0.0.1:0")
    with forward.connect() as connection:
        connection.sendall(b"hi")
        assert connection.recv(2) == b"hi"
        assert forward.end(number) == code
        assert is_reset(connection)
    assert len(forward.messages) == 1, "nothing but what it said at the beginning"
    with pytest.raises(ConnectionRefusedError):
        connected(forward.address)


def test_it_says_what_it_listens_at(web: Forward) -> None:
    assert web.address.startswith("127.0.0.1:")
    assert web.wait_for_message("Ctrl-C") == web.messages[0]


def test_an_open_address_is_warned_of(daemons: TwoDaemons) -> None:
    with forwarding(daemons.one, daemons.bob, "web", "--listen", "0.0.0.0:0") as forward:
        forward.wait_for_message("Every machine that can reach this address")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["$BOB", "wrong"], ExitCode.NOT_FOUND, "has no instance 'wrong'"),
        (["$BOB", "private"], ExitCode.DENIED, "peer accept"),
        (["nobody", "web"], ExitCode.PEER, "nothing is known about nobody"),
        (["$BOB", "web", "--as", "nobody"], ExitCode.OFFLINE, "'nobody' is not online"),
        (["$ALICE", "web"], ExitCode.NOT_FOUND, "does not offer Tunnel"),
    ],
)
def test_permanent_errors_are_reported_at_once(
    daemons: TwoDaemons, arguments: list[str], code: ExitCode, words: str
) -> None:
    names = {"$BOB": daemons.bob, "$ALICE": daemons.alice}
    asked = [names.get(each, each) for each in arguments]
    done = daemons.one.cli("forward", *asked, "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_address_cannot_be_written_to_standard_output(daemons: TwoDaemons) -> None:
    """A reader that went away, and a closed standard output: as with other commands."""
    command = f"{' '.join(CLI)} forward {daemons.bob} web --listen 127.0.0.1:0"
    for script, code in (
        (f"{command} >&-", ExitCode.STORAGE),
        (f"{command} >/dev/full", ExitCode.STORAGE),
        (f"{command} | true; exit ${{PIPESTATUS[0]}}", ExitCode.PIPE),
    ):
        done = subprocess.run(
            ["bash", "-c", script], env=daemons.one.env, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) <= 2, done.stderr


def test_a_config_that_is_none_is_refused(daemons: TwoDaemons) -> None:
    with pytest.raises(InvalidConfig, match=r"target: '127\.0\.0\.1' has no port"):
        add_binding(daemons.two, "bob", "Tunnel", "bad", target="127.0.0.1")


# ── everything is restarted ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("daemon", "actor"), [("one", "network"), ("two", "network"), ("two", "identity-bob")])
def test_a_process_is_killed(daemons: TwoDaemons, web: Forward, daemon: str, actor: str) -> None:
    where: Daemon = getattr(daemons, daemon)
    with web.connect() as connection:
        connection.sendall(b"hi")
        assert connection.recv(2) == b"hi"
        killed = where.kill_actor(actor)
        assert is_reset(connection)
    where.wait_actor(actor, not_pid=killed)
    eventually(lambda: works(web.address), "connections work again")
    web.wait_for_message("a connection was reset")


def test_daemons_are_restarted(daemons: TwoDaemons, web: Forward) -> None:
    for daemon in (daemons.two, daemons.one):
        with web.connect() as connection:
            connection.sendall(b"hi")
            assert connection.recv(2) == b"hi"
            daemon.stop()
            assert is_reset(connection)
        tried = threading.Thread(target=works, args=(web.address,))  # it does, or is rejected, and does not hang
        tried.start()
        daemon.start()
        tried.join(60)
        assert not tried.is_alive()
        eventually(lambda: works(web.address), "connections work again")
    assert web.process.poll() is None


def test_a_peer_that_is_not_online_yet(daemons: TwoDaemons) -> None:
    """The tunnel listens nevertheless, as a service that starts at boot must."""
    ticket = daemons.two.cli("ticket", "bob").stdout.strip()
    assert daemons.one.cli("peer", "add", ticket, "--name", "bob").returncode == 0
    assert daemons.two.cli("identity-offline", "bob").returncode == 0
    with forwarding(daemons.one, "bob", "web", "--listen", "127.0.0.1:0") as forward:
        forward.wait_for_message("Connections will work when")
        assert is_rejected(forward)
        assert daemons.two.cli("identity-online", "bob").returncode == 0
        eventually(lambda: works(forward.address), "connections get through")
        forward.wait_for_message("connections work again")
