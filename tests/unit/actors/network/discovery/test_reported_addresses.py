"""Reports of outside addresses: lies, floods, expiry."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.network.discovery.reported_addresses import MAX_REPORTERS, MAX_TRUSTED, MEMORY, ReportedAddresses

OUTSIDE = "203.0.113.7:4000"
LIE = "203.0.113.66:53"


def endpoint(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Reports:
    """Addresses that the reports of some endpoints lead to. Each reporter has a network of its own."""

    def __init__(self) -> None:
        self.addresses = ReportedAddresses()

    def known(self, number: int, address: str, reporter: str = "") -> bool:
        where = reporter or f"198.51.{number % 256}.1:9"
        return self.addresses.add(endpoint(number), address, reporter=where, is_known=True)

    def stranger(self, number: int, address: str, reporter: str = "") -> bool:
        where = reporter or f"198.18.{number % 256}.1:9"
        return self.addresses.add(endpoint(number), address, reporter=where, is_known=False)

    def trusted(self, now: float = 0.0) -> list[str]:
        return self.addresses.trusted(now)


def test_two_known_peers_are_trusted() -> None:
    reports = Reports()
    reports.known(1, OUTSIDE)
    assert reports.trusted() == []
    reports.known(2, OUTSIDE)
    assert reports.trusted() == [OUTSIDE]


def test_a_known_peer_and_a_stranger_elsewhere_are_trusted() -> None:
    reports = Reports()
    reports.known(1, OUTSIDE, reporter="198.51.1.1:9")
    reports.stranger(2, OUTSIDE, reporter="198.51.1.2:9")
    assert reports.trusted() == [], "the stranger is in the network of the known peer"
    reports.stranger(3, OUTSIDE)
    assert reports.trusted() == [OUTSIDE]


def test_one_endpoint_is_not_trusted_however_often_it_reports() -> None:
    reports = Reports()
    for port in range(1, 100):
        reports.known(1, f"203.0.113.66:{port}")
        reports.known(1, LIE)
    assert reports.trusted() == []


def test_strangers_alone_are_not_trusted() -> None:
    reports = Reports()
    for number in range(100):
        reports.stranger(number, LIE)
    assert reports.trusted() == []


def test_a_stranger_that_becomes_known_counts() -> None:
    reports = Reports()
    reports.stranger(1, OUTSIDE)
    reports.stranger(2, OUTSIDE)
    assert reports.addresses.on_known(endpoint(1))
    assert not reports.addresses.on_known(endpoint(1))
    assert reports.trusted() == [OUTSIDE]


def test_a_known_peer_that_the_relay_confirms_is_trusted() -> None:
    reports = Reports()
    reports.addresses.set_relay_hosts({4: "203.0.113.7"})
    reports.stranger(1, OUTSIDE)
    assert reports.trusted() == []
    reports.known(2, OUTSIDE)
    reports.known(3, LIE)
    assert reports.trusted() == [OUTSIDE]


def test_the_last_report_of_each_ip_version_counts() -> None:
    reports = Reports()
    for number in (1, 2):
        reports.known(number, LIE)
        reports.known(number, "[2001:db8::7]:4000")
        reports.known(number, OUTSIDE)
    assert sorted(reports.trusted()) == [OUTSIDE, "[2001:db8::7]:4000"]


def test_a_flood_displaces_no_report_of_a_known_peer() -> None:
    reports = Reports()
    reports.known(1, OUTSIDE)
    reports.known(2, OUTSIDE)
    for number in range(3, 3 * MAX_REPORTERS):
        reports.stranger(number, f"203.0.113.66:{number}")
    assert len(reports.addresses) == MAX_REPORTERS
    assert reports.trusted() == [OUTSIDE]


def test_only_some_addresses_are_trusted_those_of_most_peers_first() -> None:
    reports = Reports()
    for number in range(2 * MAX_TRUSTED):
        reports.known(2 * number, f"203.0.113.7:{4000 + number}")
        reports.known(2 * number + 1, f"203.0.113.7:{4000 + number}")
    reports.known(100, OUTSIDE)
    assert len(reports.trusted()) == MAX_TRUSTED
    assert reports.trusted()[0] == OUTSIDE


def test_an_address_that_no_connection_reports_any_more_is_forgotten() -> None:
    reports = Reports()
    reports.known(1, OUTSIDE)
    reports.known(2, OUTSIDE)
    assert reports.addresses.on_closed(endpoint(1), 100.0)
    assert not reports.addresses.on_closed(endpoint(9), 100.0)
    assert reports.addresses.next_expiry() == 100.0 + MEMORY
    assert reports.trusted(100.0 + MEMORY - 1) == [OUTSIDE]
    assert reports.trusted(100.0 + MEMORY) == []
    assert len(reports.addresses) == 1


def test_a_peer_that_sees_another_address_takes_its_report_back() -> None:
    reports = Reports()
    reports.known(1, OUTSIDE)
    reports.known(2, OUTSIDE)
    reports.known(2, "203.0.113.8:4000")
    assert reports.trusted() == []


@pytest.mark.parametrize(
    "address",
    [
        "", "203.0.113.7", "203.0.113.7:0", "203.0.113.7:65536", "203.0.113.7:-1", "203.0.113.7:٣", "example.org:80",
        "127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80", "169.254.1.1:80",
        "[fe80::1]:80", "255.255.255.255:80", "[::ffff:127.0.0.1]:80", "1" * 10_000 + ":80",
    ],
)  # fmt: skip
def test_some_addresses_are_never_trusted(address: str) -> None:
    reports = Reports()
    assert not reports.known(1, address)
    assert not reports.known(2, address, reporter="10.0.0.1:9")
    assert reports.trusted() == []


@pytest.mark.parametrize("address", ["10.1.2.3:80", "192.168.0.1:80", "100.64.0.9:80", "[fd00::1]:80"])
def test_a_private_address_counts_only_for_a_private_reporter(address: str) -> None:
    reports = Reports()
    assert not reports.known(1, address)
    assert not reports.addresses.add(endpoint(2), address, reporter="", is_known=True)
    assert reports.known(3, address, reporter="10.9.9.9:9")
    assert reports.known(4, address, reporter="[fd00::9]:9")
    assert reports.trusted() == [address]


def test_an_ipv4_address_in_ipv6_is_the_same_address() -> None:
    reports = Reports()
    reports.known(1, "[::ffff:203.0.113.7]:4000")
    reports.known(2, OUTSIDE)
    assert reports.trusted() == [OUTSIDE]
