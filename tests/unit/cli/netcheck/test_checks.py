"""Checks of the network: one rule each, against servers that behave as the rule needs it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli.netcheck.check import OFF, OK, PROBLEM, UNKNOWN
from fastn_p2p.cli.netcheck.directories import check_directories
from fastn_p2p.cli.netcheck.http_probe import HttpResponse, request
from fastn_p2p.cli.netcheck.lan import check_lan
from fastn_p2p.cli.netcheck.relays import check_clock, check_dns, check_relays
from fastn_p2p.cli.netcheck.udp import check_addresses, check_udp, probe_quic
from fastn_p2p_client.ipc.messages import ConnectionStatus, Status
from tests.support.certificates import make_certificate
from tests.support.daemons import DEADLINE
from tests.support.relay_clients import running_relay


@contextmanager
def http_server(ahead: float = 0.0, status: int = 200) -> Iterator[str]:
    """A server whose clock is ``ahead`` by so many seconds; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            self.wfile.write(b"pong")

        do_PUT = do_GET

        def log_message(self, format: str, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("ahead", "state"), [(0, OK), (55, OK), (-55, OK), (300, PROBLEM), (-86400, PROBLEM)])
async def test_the_clock_is_compared_with_that_of_the_servers(ahead: float, state: str) -> None:
    with http_server(ahead) as url:
        checks, answers = await check_relays([url], "internet")
    check = check_clock(answers)
    assert (checks[0].state, check.state) == (OK, state)
    if state == PROBLEM:
        assert ("behind" if ahead > 0 else "ahead") in check.text
        assert str(abs(ahead))[:2] in check.text


def test_one_server_with_a_wrong_clock_says_nothing_about_this_machine() -> None:
    answers = [HttpResponse(200, b"", 1.0, offset, "") for offset in (0.5, 0.1, 9000.0, None)]
    assert check_clock(answers).state == OK
    assert check_clock([]).state == UNKNOWN


async def test_redirects_are_not_followed() -> None:
    """Requests go to what the settings name, and nowhere else."""
    with http_server(status=302) as url:
        (check,), _ = await check_relays([url], "internet")
        (listed,), _ = await check_directories([url], [], "internet")
    assert (check.state, "302" in check.text) == (PROBLEM, True)
    assert "config set network.relays" in check.advice
    assert (listed.state, "302" in listed.text) == (PROBLEM, True)


async def test_a_directory_that_returns_something_else() -> None:
    with http_server() as url:
        (check,), _ = await check_directories([url], [], "internet")
    assert (check.state, "something else" in check.text) == (PROBLEM, True)


async def test_a_directory_without_the_record_of_an_identity() -> None:
    async with running_relay() as server:
        url = f"http://{server.addresses[0]}/pkarr"
        id52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
        (check,), _ = await check_directories([url], [("alice", id52)], "internet")
        (wrong,), _ = await check_directories([url.removesuffix("/pkarr")], [("alice", id52)], "internet")
    assert check.state == PROBLEM
    assert "no record of alice" in check.text
    assert (wrong.state, wrong.text) == (PROBLEM, "publish: HTTP status 404")
    assert "config set network.directories" in wrong.advice


async def test_no_servers_are_no_problem() -> None:
    (relay,), _ = await check_relays([], "internet")
    (directory,), _ = await check_directories([], [], "lan")
    assert (relay.state, relay.text) == (OFF, "the settings name no relays")
    assert (directory.state, directory.text) == (OFF, "network mode lan uses no directories")


def test_a_server_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(65536)
                accepted.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        answer = request("GET", f"http://127.0.0.1:{server.getsockname()[1]}/ping")
        thread.join()
    assert "does not answer as an HTTP server" in answer.problem


def test_a_server_that_sends_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p.cli.netcheck.http_probe.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            accepted, _ = server.accept()
            with accepted, suppress(OSError):
                accepted.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    accepted.sendall(b"y")
                    time.sleep(0.02)

        thread = threading.Thread(target=answer)
        thread.start()
        slow = request("GET", f"http://127.0.0.1:{server.getsockname()[1]}/ping")
        thread.join()
    assert slow.problem == "no answer within 0.2 s"


def test_an_ipv6_address_without_a_port() -> None:
    assert "DNS" not in request("GET", "http://[::1]/ping").problem


async def test_udp_is_probed_by_a_quic_version_that_nothing_speaks(tmp_path: Path) -> None:
    import asyncio

    certificate, key = make_certificate(tmp_path)
    async with running_relay(certificate=certificate, key=key) as server:
        port = server.discovery_addresses[0].port
        taken = await asyncio.to_thread(probe_quic, "127.0.0.1", port)
    assert taken is not None
    assert taken > 0


def test_udp_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p.cli.netcheck.udp._TRIES", (0.02,))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert probe_quic("127.0.0.1", silent.getsockname()[1]) is None


def status(addresses: list[str], *connections: tuple[str, str]) -> Status:
    return Status(
        version="1", home="/h", network_mode="internet", endpoint="", addresses=addresses, uptime_ms=1, clients=0,
        processes=[], identities=[], peers=[], warnings=[],
        connections=[
            ConnectionStatus(
                endpoint="", identities=[], path=path, address=address, rtt_ms=1, outgoing=True, streams=1,
                in_flight=0, sent=0, received=0, age_ms=1,
            )
            for path, address in connections
        ],
    )  # fmt: skip


async def test_a_direct_connection_to_another_machine_shows_that_udp_works() -> None:
    assert (await check_udp([], status([], ("direct", "192.0.2.7:4433")))).state == OK
    assert (await check_udp([], status([], ("direct", "127.0.0.1:4433")))).state == UNKNOWN
    assert (await check_udp([], status([], ("relayed", "https://relay.example/")))).state == UNKNOWN


@pytest.mark.parametrize(
    ("addresses", "state", "words"),
    [
        (["10.0.0.1:4433"], UNKNOWN, "unknown, because no relay and no peer"),
        (["10.0.0.1:4433", "8.8.4.4:4433"], UNKNOWN, "unknown until a second observer"),
        (["10.0.0.1:4433", "8.8.4.4:4433", "8.8.4.4:50123"], OK, "differs by destination"),
    ],
)
def test_the_kind_of_nat_needs_two_observers(addresses: list[str], state: str, words: str) -> None:
    nat = next(each for each in check_addresses(status(addresses), "internet") if each.name == "NAT")
    assert nat.state == state
    assert words in nat.text


@pytest.mark.parametrize(
    ("own", "listed", "seen", "state", "words"),
    [
        (
            "198.51.100.20",
            ["198.51.100.20:4433"],
            "198.51.100.20",
            OK,
            "none: this machine has the public IPv4 address",
        ),
        ("10.1.0.30", ["10.1.0.30:4433"], "198.51.100.11", UNKNOWN, "a relay sees this machine as 198.51.100.11"),
        ("10.1.0.30", ["198.51.100.11:4433"], "198.51.100.11", UNKNOWN, "seen from outside as 198.51.100.11:4433"),
        ("10.1.0.30", ["198.51.100.11:4433", "198.51.100.11:9"], "198.51.100.11", OK, "differs by destination"),
        ("2001:db8::7", ["[2001:db8::7]:4433"], "2001:db8::7", OK, "none: this machine has no IPv4"),
    ],
)
def test_the_nat_as_a_relay_sees_it(
    own: str, listed: list[str], seen: str, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fastn_p2p.cli.netcheck.udp._route_address", lambda to: own if (":" in own) == (":" in to) else ""
    )
    nat = next(each for each in check_addresses(status(listed), "internet", {seen}) if each.name == "NAT")
    assert (nat.state, words in nat.text) == (state, True), nat.text


def test_addresses_of_both_families() -> None:
    check = check_addresses(status(["10.0.0.1:4433", "[2001:db8::7]:4433", "http://relay/"]), "internet")[0]
    assert check.text == "IPv4 and IPv6: 10.0.0.1:4433, [2001:db8::7]:4433"


async def test_the_lan_that_is_turned_off() -> None:
    (local,) = await check_lan(uses_lan=False, mode="local")
    (off,) = await check_lan(uses_lan=False, mode="lan")
    assert (local.state, off.state, off.text) == (OFF, OFF, "the settings turn it off")


@pytest.fixture
def dropped_queries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """DNS does not answer, as where a network drops queries: the C library waits."""
    end = threading.Event()

    def wait(*_: object, **__: object) -> list[Any]:
        end.wait(DEADLINE)
        return []

    monkeypatch.setattr("socket.getaddrinfo", wait)
    monkeypatch.setattr("fastn_p2p.cli.netcheck.time_limit.DNS_TIMEOUT", 0.02)
    yield
    end.set()


async def test_dns_that_does_not_answer_is_named(dropped_queries: None) -> None:
    relays, answers = await check_relays(["https://relay.example/"], "internet")
    directories, more = await check_directories(["https://directory.example/pkarr"], [], "internet")
    udp = await check_udp(["https://relay.example/"], None)
    assert all("DNS has not answered" in each.text for each in (*relays, *directories))
    assert udp.text == "DNS does not answer, so none could be asked over UDP"
    (dns,) = check_dns([*answers, *more])
    assert (dns.state, "2 of 2 requests" in dns.text) == (PROBLEM, True)
    assert check_dns([HttpResponse(200, b"", 1.0, None, "")]) == []


async def test_servers_that_do_not_answer_do_not_hold_the_command_up() -> None:
    """Neither its result nor its end: no thread is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (relay,), _ = await check_relays([url], "internet", 0.05)
        (directory,), _ = await check_directories([url], [], "internet", 0.05)
        for check in (relay, directory):
            assert (check.state, check.text) == (PROBLEM, "no complete answer within 0.1 s")
        assert all(each.daemon for each in threading.enumerate() if each.name.startswith("netcheck"))
